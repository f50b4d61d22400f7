"""What the pipeline asks of a model family. Nothing else in the code knows a model's name."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.datasets import Splits
from pipeline.certification.accuracy import Score

Predict = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Runs samples [n, …] through a deployed network, wherever it runs, and gives its outputs [n, …]."""

Feeds = dict[str, NDArray[Any]]
"""What a deployed network is fed: arrays [n, …] by the names of its inputs, in their order."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A width inside a block: channels that some layers write and one layer alone reads.

    Args:
        producers: layers whose outputs the channels are, all of the same number.
        consumer: the layer that reads them.
        count: how many channels, or groups of channels, there are.
        size: channels that only go together, such as those of an attention head.
        step: groups that are removed at a time, to suit the vector width.
    """

    producers: tuple[str, ...]
    consumer: str
    count: int
    size: int = 1
    step: int = 8


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a network whose inner widths can shrink without anything outside of it changing its shape.

    Args:
        name: the module's name in the network, such as ``layer1.0``.
        cuts: its widths, which shrink by the same share.
    """

    name: str
    cuts: tuple[Cut, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """Every layer that a cut touches, in the order of the cuts."""
        return tuple(dict.fromkeys(name for cut in self.cuts for name in (*cut.producers, cut.consumer)))


@dataclass(frozen=True, slots=True)
class Unit:
    """What is compressed on its own: a layer, or all layers that share the widths of a block.

    Args:
        name: the module's name in the network, such as ``layer1.0.conv1``.
        kind: ``conv``, ``linear`` or ``block``.
        members: names of the modules whose weights belong to the unit, the first one leading.
        shape: shape of the leading weight, [out, in, kh, kw] or [out, in].
        latency_group: units with the same group cost the same (weight shape, stride, input size).
        prunable: False for units that stay dense by default (first convolution, classifier).
        macs: multiply-accumulates of one sample.
        cuts: the widths of a block.
        parts: the layers of a block; none for a unit that is a layer itself.
    """

    name: str
    kind: str
    members: tuple[str, ...]
    shape: tuple[int, ...]
    latency_group: str
    prunable: bool
    macs: float = 0.0
    cuts: tuple[Cut, ...] = ()
    parts: tuple["Unit", ...] = ()

    @property
    def layers(self) -> tuple["Unit", ...]:
        """The layers that the unit is made of."""
        return self.parts or (self,)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(layer.shape) for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a family is trained and how much of it fits into memory at a time.

    Args:
        optimizer: of gradual pruning: SGD with Nesterov's momentum, or AdamW.
        peak_lr: its largest learning rate.
        weight_decay: of all parameters.
        training_batch: samples a step, also of post-training correction.
        correction_lr: of Adam in post-training correction.
        block_weight: of the blocks' relative squared errors there, beside the loss of the outputs.
        training_block_weight: the same in gradual pruning, where hidden states are distilled as well.
        inference_batch: samples at a time where nothing is learnt.
        statistics_batch: samples at a time where layers' inputs are unfolded into their second moments.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    peak_lr: float = 0.05
    weight_decay: float = 1e-4
    training_batch: int = 128
    correction_lr: float = 6e-3
    block_weight: float = 25.0
    training_block_weight: float = 0.0
    inference_batch: int = 256
    statistics_batch: int = 64


class ModelAdapter(Protocol):
    """A family of networks: how to load, split, run, judge and train one.

    A *network* takes one tensor of samples [n, …] and gives one raw output [n, …], such as logits: that is what is
    searched and trained. Its *deployed* form takes the inputs and gives the outputs that users of such networks know.
    """

    name: str
    metric: str
    task: str
    """What the network does, in Hugging Face's words, such as ``image-classification``."""
    recipe: Recipe

    def load_data(self, data: Path | None, weights: Path | None, input_size: int | None) -> Splits:
        """The data, every sample at ``input_size`` pixels a side or tokens; None for the family's usual size.

        ``weights`` may say how data becomes samples, as a tokenizer beside them does.
        """

    def load(self, weights: Path | None, data: Splits) -> nn.Module:
        """The dense network in eval mode, with ``weights`` or, for embedded models, trained on the spot and cached."""

    def units(self, model: nn.Module, sample: Tensor) -> list[Unit]:
        """Every convolution and linear layer in the order in which ``sample`` [1, …] runs through them.

        Those that may be compressed are marked.
        """

    def blocks(self, model: nn.Module) -> list[str]:
        """Names of the modules whose outputs post-training correction matches to the dense network's."""

    def widths(self, model: nn.Module) -> list[Block]:
        """Blocks whose inner widths can shrink, none where the family's blocks are not known."""

    def deployed(self, model: nn.Module) -> nn.Module:
        """What is exported and judged: takes the tensors of `feeds` in their order and gives one output [n, …].

        It is ``model`` itself, or holds it as its attribute ``network``.
        """

    def feeds(self, inputs: NDArray[Any]) -> Feeds:
        """The deployed network's inputs for samples [n, …]."""

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] loss >= 0 of each sample against the dense network's outputs; needs no labels."""

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss for gradual pruning: task loss with distillation from the dense network."""

    def training_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """[n] between 0 and 1, how right each output is: shown while the network trains."""

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """Score on the held-out split, through whatever ``predict`` runs the deployed network on."""

"""What the pipeline asks of a model family. Nothing else in the code knows a model's name."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.datasets import Splits

Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Runs inputs [n, ...] through a network, wherever it runs, and gives its outputs [n, ...]."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What is compressed on its own.

    Args:
        name: the module's name in the network, such as ``layer1.0.conv1``.
        kind: ``conv`` or ``linear``.
        members: names of the modules whose weights belong to the unit, the first one leading.
        shape: shape of the leading weight, [out, in, kh, kw] or [out, in].
        latency_group: units with the same group cost the same (weight shape, stride, input size).
        prunable: False for units that stay dense by default (first convolution, classifier).
        macs: multiply-accumulates of one sample.
    """

    name: str
    kind: str
    members: tuple[str, ...]
    shape: tuple[int, ...]
    latency_group: str
    prunable: bool
    macs: float = 0.0

    @property
    def parameters(self) -> int:
        """Number of weights in the leading module."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation on held-out data found.

    Args:
        metric: what was measured, such as ``top-1 accuracy``.
        value: between 0 and 1, larger is better.
        per_sample: [n] one value a sample; its mean is ``value`` where the metric is a mean.
    """

    metric: str
    value: float
    per_sample: NDArray[np.float64]


class ModelAdapter(Protocol):
    """A family of networks: how to load, split, run, judge and train one."""

    name: str
    metric: str
    family: str
    """What the outputs mean to a program that serves the network, see `pipeline.serving.record`."""
    task: str
    """What the network does, in Hugging Face's words, such as ``image-classification``."""

    def load(self, weights: Path | None, data: Splits) -> nn.Module:
        """The dense network in eval mode, with ``weights`` or, for embedded models, trained on the spot and cached."""

    def units(self, model: nn.Module, input_shape: Sequence[int]) -> list[Unit]:
        """Every convolution and linear layer in execution order, with those that may be compressed marked."""

    def blocks(self, model: nn.Module) -> list[str]:
        """Names of the modules whose outputs post-training correction matches to the dense network's."""

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] loss >= 0 of each sample against the dense network's outputs; needs no labels."""

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss for gradual pruning: task loss with distillation from the dense network."""

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """Score on the held-out split, through whatever ``predict`` runs on."""


Weights = Mapping[str, torch.Tensor]

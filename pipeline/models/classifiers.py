"""The adapter of image classifiers: residual networks, by variant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.datasets import Splits, load_splits
from pipeline.certification.accuracy import Score
from pipeline.models.base import Block, Feeds, Predict, Recipe, Unit
from pipeline.models.checkpoints import differences, load_weights, read_weights
from pipeline.models.distillation import distilled, divergence
from pipeline.models.inference import single_feed
from pipeline.models.resnet import VARIANTS, ResidualBlock, Variant, residual_widths
from pipeline.models.tracing import trace_units
from pipeline.serving.record import IMAGE_CLASSIFICATION
from targets.errors import ConfigError

DISTILLATION_TEMPERATURE = 4.0
EVALUATION_BATCH = 500


class ResNetAdapter:
    """A residual network as the pipeline sees it; implements `pipeline.models.base.ModelAdapter`."""

    metric = "top-1 accuracy"
    task = IMAGE_CLASSIFICATION
    recipe = Recipe()

    def __init__(self, variant: Variant) -> None:
        self.name = variant.name
        self._variant = variant

    def load_data(self, data: Path | None, weights: Path | None, input_size: int | None) -> Splits:  # noqa: ARG002
        """Images by class, or the embedded digits.

        Raises:
            ConfigError: the images are of another size than was asked for.
            DataError: the data is missing, broken or laid out otherwise.
        """
        splits = load_splits(data)
        *_, height, width = splits.train.input_shape
        if input_size not in (None, height):
            raise ConfigError(
                f"The input size {input_size} was asked for; the network sees the images of '{splits.name}' at "
                f"{height} x {width} pixels. Leave the input size out, or prepare images of that size."
            )
        return splits

    def load(self, weights: Path | None, data: Splits) -> nn.Module:
        """The dense network in eval mode; an embedded one without ``weights`` is trained on the spot and cached.

        Raises:
            ConfigError: no weights, or weights that do not go with the data.
            ArtifactError: the weights are broken or of another architecture.
        """
        if weights is not None:
            model = load_variant(self._variant, weights)
            self._require_match(model, weights, data)
            return model
        if not self._variant.embedded:
            raise ConfigError(f"{self.name} needs trained weights: give --weights FILE, or use --model resnet:digits.")
        from pipeline.models.digits import trained_digits_model

        return trained_digits_model(self._variant, data)

    def units(self, model: nn.Module, sample: Tensor) -> list[Unit]:
        """Every convolution and linear layer as it runs; the first convolution and the classifier stay dense."""
        return trace_units(model, sample, dense=("conv1", self._variant.classifier))

    def blocks(self, model: nn.Module) -> list[str]:
        """Names of the residual blocks."""
        return [name for name, module in model.named_modules() if isinstance(module, ResidualBlock)]

    def widths(self, model: nn.Module) -> list[Block]:
        """The middle channels of the residual blocks."""
        return residual_widths(model)

    def deployed(self, model: nn.Module) -> nn.Module:
        """The network itself: images to logits."""
        return model

    def feeds(self, inputs: NDArray[Any]) -> Feeds:
        """The images."""
        return single_feed(inputs)

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] Kullback-Leibler divergence of the compressed network's class probabilities from the dense one's."""
        return divergence(outputs, dense_outputs).clamp_min(0)

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy and distillation."""
        return distilled(outputs, dense_outputs, labels, DISTILLATION_TEMPERATURE)

    def training_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """[n] 1 where the class is right."""
        return (outputs.argmax(dim=1) == labels).float()

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """Top-1 accuracy on the test split."""
        total = len(data.test)
        hits = np.empty(total)
        for start in range(0, total, EVALUATION_BATCH):
            rows = np.arange(start, min(start + EVALUATION_BATCH, total), dtype=np.int64)
            outputs = predict(data.test.inputs(rows))
            hits[rows] = outputs.argmax(axis=1) == data.test.labels[rows]
        return Score(self.metric, float(hits.mean()), hits)

    def _require_match(self, model: nn.Module, weights: Path, data: Splits) -> None:
        channels, expected = data.train.input_shape[0], model.get_parameter("conv1.weight").shape[1]
        if channels != expected:
            raise ConfigError(
                f"{weights} takes inputs of {expected} channels, the data '{data.name}' has {channels}: "
                "give --data the images that the network was trained on."
            )
        classes, known = len(data.train.classes), model.get_parameter(f"{self._variant.classifier}.weight").shape[0]
        if classes != known:
            raise ConfigError(
                f"{weights} knows {known} classes, the data '{data.name}' has {classes}: "
                "give --data the classes that the network was trained on, one folder each."
            )


def load_cifar_resnet(depth: int, weights: Path) -> nn.Module:
    """A CIFAR ResNet in eval mode, with the weights and the number of classes of a checkpoint.

    Args:
        depth: 20, 32, 44, 56 or 110.
        weights: as `read_weights` takes.

    Raises:
        ConfigError: no such depth or file.
        ArtifactError: the file is broken or of another architecture.
    """
    variant = VARIANTS.get(f"resnet:{depth}")
    if variant is None or variant.classifier != "linear":
        raise ConfigError(f"No CIFAR ResNet of depth {depth}: there are 20, 32, 44, 56 and 110.")
    return load_variant(variant, weights)


def load_variant(variant: Variant, path: Path) -> nn.Module:
    """The network with the weights of ``path``, which also say its classes and channels, in eval mode."""
    weights = read_weights(path)
    model = variant.build(*_sizes(variant, weights))
    fits = [name for name, other in VARIANTS.items() if _fits(other, weights)] if differences(model, weights) else []
    load_weights(model, weights, str(path), fits)
    return model.eval()


def _sizes(variant: Variant, weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Classes and channels that ``weights`` are for; those of CIFAR-10 where they cannot be told."""
    first, last = weights.get("conv1.weight"), weights.get(f"{variant.classifier}.weight")
    classes = last.shape[0] if last is not None and last.ndim == 2 else 10
    channels = first.shape[1] if first is not None and first.ndim == 4 else 3
    return classes, channels


def _fits(variant: Variant, weights: Mapping[str, Tensor]) -> bool:
    with torch.device("meta"):
        return not differences(variant.build(*_sizes(variant, weights)), weights)

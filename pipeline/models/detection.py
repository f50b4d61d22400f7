"""The adapter of object detectors: YOLOv5 in its five sizes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.datasets import Splits
from calibration.detection import DetectionSplit, detection_splits
from pipeline.certification.accuracy import Score
from pipeline.models.base import Block, Cut, Feeds, Predict, Recipe, Unit
from pipeline.models.checkpoints import differences, load_weights, read_weights, usable
from pipeline.models.detection_loss import DetectionLoss
from pipeline.models.pickled_modules import holds_objects, read_module
from pipeline.models.tracing import trace_units
from pipeline.models.yolov5 import (
    ANCHORS,
    C3,
    FIRST,
    PREDICTING,
    SIZES,
    SPPF,
    Bottleneck,
    DecodedYoloV5,
    Size,
    YoloV5,
    coco_anchors,
)
from pipeline.scoring.nms import BOX_VALUES
from pipeline.scoring.objects import ObjectScorer
from pipeline.serving.record import OBJECT_DETECTION
from targets.errors import ConfigError

INPUT_SIZE = 640
"""Pixels on each side that the published checkpoints were trained with."""

DISTILLATION_WEIGHT = 0.05
"""Of the distance to the dense network's outputs, beside the loss against the labels."""

DATA_FORMAT = "images with COCO's instances_*.json, or YOLO's labels/ and data.yaml; 3x640x640 by default"


class YoloAdapter:
    """A YOLOv5 network as the pipeline sees it; implements `pipeline.models.base.ModelAdapter`."""

    metric = "mAP@.5:.95"
    task = OBJECT_DETECTION
    recipe = Recipe(
        optimizer="adamw",
        peak_lr=3e-4,
        weight_decay=5e-4,
        training_batch=8,
        correction_lr=1e-3,
        inference_batch=16,
        statistics_batch=8,
    )

    def __init__(self, size: Size) -> None:
        self.name = size.name
        self._size = size
        self._loss = DetectionLoss(coco_anchors())

    def load_data(self, data: Path | None, weights: Path | None, input_size: int | None) -> Splits:  # noqa: ARG002
        """Annotated images in COCO's or YOLO's layout.

        Raises:
            ConfigError: there is no data.
            DataError: it is missing, broken or laid out otherwise, or the input size does not fit the network.
        """
        if data is None:
            raise ConfigError(f"{self.name} needs annotated images: give --data {DATA_FORMAT}.")
        return detection_splits(data, INPUT_SIZE if input_size is None else input_size)

    def load(self, weights: Path | None, data: Splits) -> nn.Module:
        """The dense network in eval mode; its classes and anchors are those of ``weights``.

        Raises:
            ConfigError: no weights, or weights that do not go with the data.
            ArtifactError: the weights are broken or of another architecture.
        """
        if weights is None:
            raise ConfigError(f"{self.name} needs trained weights: give --weights FILE, .pt or .safetensors.")
        model = load_yolov5(self._size, weights)
        classes, known = len(data.train.classes), _classes(model.state_dict())
        if classes != known:
            raise ConfigError(
                f"{weights} knows {known} classes, the data '{data.name}' has {classes}: give --data all the classes "
                "that the network was trained on, in their order (COCO's categories, or names in data.yaml)."
            )
        self._loss = DetectionLoss(model.anchors.clone())
        return model

    def units(self, model: nn.Module, sample: Tensor) -> list[Unit]:
        """Every convolution as it runs; the first one and those that predict stay dense."""
        return trace_units(model, sample, dense=(FIRST, *PREDICTING))

    def blocks(self, model: nn.Module) -> list[str]:
        """Names of the cross-stage partial blocks and of the pyramid pooling."""
        return [name for name, module in model.named_modules() if isinstance(module, C3 | SPPF)]

    def widths(self, model: nn.Module) -> list[Block]:
        """The hidden channels of the bottlenecks inside the cross-stage partial blocks."""
        return [
            Block(name, (Cut((f"{name}.cv1.conv",), f"{name}.cv2.conv", module.cv1.conv.out_channels),))
            for name, module in model.named_modules()
            if isinstance(module, Bottleneck)
        ]

    def deployed(self, model: nn.Module) -> nn.Module:
        """Images to boxes in pixels and probabilities."""
        assert isinstance(model, YoloV5)
        return DecodedYoloV5(model)

    def feeds(self, inputs: NDArray[Any]) -> Feeds:
        """The images, under the name that YOLOv5's own export gives them."""
        return {"images": inputs}

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] how far objectness, classes and boxes are from the dense network's."""
        return self._loss.divergence(outputs, dense_outputs)

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """YOLOv5's loss and distillation: the same distance as for calibration."""
        distance = self._loss.divergence(outputs, dense_outputs).mean()
        return self._loss.task(outputs, labels) + DISTILLATION_WEIGHT * distance

    def training_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """[n] share of the objects that were found."""
        return self._loss.found(outputs, labels)

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """Mean average precision over the overlaps 0.5 to 0.95.

        Raises:
            ConfigError: the test split has no boxes.
        """
        split, step = data.test, self.recipe.inference_batch
        if not isinstance(split, DetectionSplit):
            raise ConfigError(f"{self.name} is judged by annotated images: load the data with its own adapter.")
        parts = (np.arange(start, min(start + step, len(split))) for start in range(0, len(split), step))
        outputs = (predict(split.inputs(rows)) for rows in parts)  # those of all images would not fit into memory
        return ObjectScorer().score(outputs, split.truth(np.arange(len(split))), self.metric)


def load_yolov5(size: Size, path: Path) -> YoloV5:
    """The network with the weights of ``path``, which also say its classes and anchors, in eval mode.

    Args:
        size: of the network.
        path: the official kind of checkpoint, or named tensors as `read_weights` takes.

    Raises:
        ConfigError: there is no such file, or it is of another kind.
        ArtifactError: it is broken or of another architecture.
    """
    weights = usable(read_module(path), path) if holds_objects(path) else read_weights(path)
    model = YoloV5(size, _classes(weights))
    fits = [name for name, other in SIZES.items() if _fits(other, weights)] if differences(model, weights) else []
    load_weights(model, weights, str(path), fits)
    return model.eval()


def _classes(weights: Mapping[str, Tensor]) -> int:
    """Classes that ``weights`` are for; those of COCO where they cannot be told."""
    bias = weights.get(f"{PREDICTING[0]}.bias")
    values = 0 if bias is None else len(bias) // len(ANCHORS[0])
    return values - BOX_VALUES if values > BOX_VALUES else 80


def _fits(size: Size, weights: Mapping[str, Tensor]) -> bool:
    with torch.device("meta"):
        return not differences(YoloV5(size, _classes(weights)), weights)

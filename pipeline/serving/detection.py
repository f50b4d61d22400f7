"""What an object detector found, for people: named boxes in the picture's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.letterbox import Letterbox
from pipeline.models.nms import find_detections

CONFIDENCE, OVERLAP = 0.25, 0.45
"""As YOLOv5 detects; a network is judged by many more boxes, in which hardly anyone would believe."""


@dataclass(frozen=True, slots=True)
class FoundObject:
    """One object.

    Args:
        name: of its class.
        confidence: between 0 and 1.
        box: left, top, right and bottom in pixels of the picture.
    """

    name: str
    confidence: float
    box: tuple[float, float, float, float]


def found_objects(
    outputs: NDArray[Any], classes: Sequence[str], size: tuple[int, int], side: int, confidence: float = CONFIDENCE
) -> list[FoundObject]:
    """The objects in one picture, the most confident first.

    Args:
        outputs: [anchors, 5 + classes] of the network for the picture in its square.
        size: width and height of the picture in pixels.
        side: of the square in pixels.
        confidence: objects below are left out.
    """
    letterbox = Letterbox.of(size, side)
    found = find_detections(outputs, confidence, OVERLAP)
    shift, scale = (letterbox.left, letterbox.top), (size[0] / letterbox.width, size[1] / letterbox.height)
    boxes = ((found.corners - np.tile(shift, 2)) * np.tile(scale, 2)).clip(0, np.tile(size, 2))
    return [
        FoundObject(classes[kind], float(score), (left, top, right, bottom))
        for kind, score, (left, top, right, bottom) in zip(found.classes, found.scores, boxes.tolist(), strict=True)
    ]

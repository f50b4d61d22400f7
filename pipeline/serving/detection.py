"""What an object detector's outputs mean for people: named boxes in the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.letterbox import Letterbox
from pipeline.scoring.nms import find_detections

CONFIDENCE, OVERLAP = 0.25, 0.45
"""What people see, as YOLOv5 shows it: far fewer boxes than precision is judged by."""


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object in an image.

    Args:
        name: of its class.
        probability: between 0 and 1.
        box: left, top, right and bottom in pixels of the image.
    """

    name: str
    probability: float
    box: tuple[float, float, float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"class": self.name, "probability": self.probability, "box": list(self.box)}


def read_objects(
    outputs: NDArray[np.float32], image: Image.Image, side: int, classes: Sequence[str]
) -> list[FoundObject]:
    """The objects in one image, the most probable first.

    Args:
        outputs: [anchors, 5 + classes] as `find_detections` takes them, for the letterboxed image.
        image: as it was before.
        side: of the square that the network saw.
        classes: their names.
    """
    found = find_detections(outputs, CONFIDENCE, OVERLAP)
    letterbox = Letterbox.of(image.size, side)
    scale = np.array([image.width / letterbox.width, image.height / letterbox.height] * 2)
    corners = (found.corners - np.array([letterbox.left, letterbox.top] * 2)) * scale
    corners = corners.clip(0, np.array([image.width, image.height] * 2))
    rows = zip(found.classes, found.scores, corners.tolist(), strict=True)
    return [
        FoundObject(classes[kind], float(score), (left, top, right, bottom))
        for kind, score, (left, top, right, bottom) in rows
    ]

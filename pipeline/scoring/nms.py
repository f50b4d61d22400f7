"""Non-maximum suppression: from a box for every anchor to a box for every object."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BOX_VALUES = 5
"""A prediction begins with x, y, width, height and objectness; the classes follow."""

CONFIDENCE = 0.001
"""Candidates below are left out: low, so that precision is judged at every recall."""

OVERLAP = 0.6
"""Intersection over union from which two boxes of a class are one object."""

LIMIT = 300
"""Detections in an image."""


@dataclass(frozen=True, slots=True)
class Detections:
    """What was found in one image, the most confident first.

    Args:
        corners: [k, 4] left, top, right and bottom in pixels of the input.
        scores: [k] confidence, between 0 and 1.
        classes: [k] number of the class.
    """

    corners: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]


def find_detections(
    outputs: NDArray[np.float32], confidence: float = CONFIDENCE, overlap: float = OVERLAP, limit: int = LIMIT
) -> Detections:
    """The objects in one image.

    A box counts for its most probable class, as YOLOv5 detects; its validation lets a box count for every class, which
    adds 0.006 to the mean average precision on COCO. Only boxes of the same class suppress each other.

    Args:
        outputs: [anchors, 5 + classes] x, y (centre), w, h in pixels, objectness, probability of each class.
        confidence: candidates below are left out.
        overlap: intersection over union from which the less confident of two boxes goes.
        limit: number of detections that stay.
    """
    likely = outputs[outputs[:, 4] > confidence].astype(np.float64)
    classes = likely[:, BOX_VALUES:].argmax(axis=1)
    scores = likely[:, 4] * likely[np.arange(len(likely)), BOX_VALUES + classes]
    rows = np.flatnonzero(scores > confidence)
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    likely, classes, scores = likely[rows], classes[rows], scores[rows]
    centres, halves = likely[:, :2], likely[:, 2:4] / 2
    corners = np.concatenate([centres - halves, centres + halves], axis=1)
    kept = _suppress(corners, classes, overlap, limit)
    return Detections(corners[kept], scores[kept], classes[kept].astype(np.int64))


def _suppress(corners: NDArray[np.float64], classes: NDArray[np.intp], overlap: float, limit: int) -> NDArray[np.intp]:
    """Rows that stay, ``corners`` being in the order of falling confidence.

    Classes are moved so far apart that no two boxes of different ones meet.
    """
    span = corners.max(initial=0) - corners.min(initial=0) + 1
    apart = corners + (classes * span)[:, None]
    areas = (apart[:, 2:] - apart[:, :2]).prod(axis=1)
    kept: list[int] = []
    left = np.arange(len(apart))
    while len(left) and len(kept) < limit:
        best, left = int(left[0]), left[1:]
        kept.append(best)
        sides = np.minimum(apart[left, 2:], apart[best, 2:]) - np.maximum(apart[left, :2], apart[best, :2])
        common = sides.clip(0).prod(axis=1)
        left = left[common <= overlap * (areas[left] + areas[best] - common)]
    return np.array(kept, np.intp)

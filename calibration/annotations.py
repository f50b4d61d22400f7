"""What is in images: boxes around objects, whatever files say so."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.errors import DataError

LAYOUTS = (
    "Lay it out as COCO (instances_train.json, instances_val.json and a folder images/) "
    "or as YOLO (images/train, images/val, labels/train, labels/val, and data.yaml with the classes' names)"
)

Boxes = NDArray[np.float64]
"""[k, 5] class, then centre x, centre y, width and height as shares of the picture's width and height."""


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image and what is in it.

    Args:
        member: the image file's path in its source.
        size: width and height in pixels.
        boxes: [k, 5] around single objects.
        crowds: [k, 5] around groups, in which detections are neither right nor wrong.
    """

    member: str
    size: tuple[int, int]
    boxes: Boxes
    crowds: Boxes


@dataclass(frozen=True, slots=True)
class Annotations:
    """One split's images.

    Args:
        classes: names, in the order of the numbers in the boxes.
        images: in the order of their paths.
    """

    classes: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]


def boxes_of(rows: Iterable[tuple[float, ...]]) -> Boxes:
    """[k, 5] of rows of class, x, y, width and height; also of none."""
    return np.array(list(rows), np.float64).reshape(-1, 5)


def require_images(root: Path, missing: Collection[str], annotations: str) -> None:
    """Refuse annotations of images that are not there.

    Args:
        root: of the data.
        missing: names of those images.
        annotations: the file or folder that names them.

    Raises:
        DataError: there are any.
    """
    if missing:
        names = ", ".join(sorted(missing)[:3]) + (", …" if len(missing) > 3 else "")
        raise DataError(
            f"{root}: {annotations} names {len(missing)} images that are not there ({names}). "
            "Put them back, or take them out of the annotations"
        )


def require_objects(root: Path, images: Collection[AnnotatedImage], annotations: str) -> None:
    """Refuse a split in which nothing is annotated.

    Raises:
        DataError: no image has a box.
    """
    if not any(len(image.boxes) for image in images):
        raise DataError(f"{root}: {annotations} annotates no object in {len(images)} images. Give annotated images")

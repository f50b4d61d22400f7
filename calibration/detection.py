"""Images with boxes around their objects, as detection networks see them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.annotations import LAYOUTS, Annotations, Boxes
from calibration.coco import find_instances, read_coco
from calibration.datasets import Batch, Splits, Truth, some_of
from calibration.decoding import decode_upright
from calibration.errors import DataError
from calibration.letterbox import GREY, Letterbox
from calibration.mosaic import BoxedPicture, augment
from calibration.picture_cache import PictureCache
from calibration.pictures import Picture, Preprocessing
from calibration.sources import Source, open_source
from calibration.yolo_labels import find_labels, read_yolo_labels

CELL = 32
"""Pixels of the coarsest grid's cells, of which the input's side must be a multiple."""

PADDING = -1
"""Class of the rows that fill up the labels of samples with fewer boxes."""


class DetectionSplit:
    """Letterboxed images; training sees mosaics of four.

    Boxes are [class, centre x, centre y, width, height] with the four as shares of the square input, in float32;
    rows of class -1 fill up what is ragged.

    Args:
        source: where the files are.
        annotations: which images belong to the split, and what is in them.
        side: of the square input, in pixels.
        cache_bytes: how much decoded data is kept at most.

    Attributes:
        labels: [n, boxes, 5] around the objects of each image.
        crowds: [n, boxes, 5] around groups, in which detections are neither right nor wrong.
        regions: [n, 4] left, top, right and bottom of each image in its square, as shares.
    """

    def __init__(self, source: Source, annotations: Annotations, side: int, cache_bytes: int = 2**30):
        self.classes = annotations.classes
        self.strata = np.zeros(len(annotations.images), np.int64)
        self.input_shape: tuple[int, ...] = (3, side, side)
        self.preprocessing: Preprocessing | None = Preprocessing(
            "RGB", (side, side), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), frame=GREY
        )
        self._source = source
        self._images = annotations.images
        self._letterboxes = [Letterbox.of(image.size, side) for image in annotations.images]
        paired = list(zip(annotations.images, self._letterboxes, strict=True))
        self.labels = _padded([letterbox.boxes(image.boxes) for image, letterbox in paired])
        self.crowds = _padded([letterbox.boxes(image.crowds) for image, letterbox in paired])
        self.regions = np.array([letterbox.region for letterbox in self._letterboxes])
        self._pictures = PictureCache(self._decode, cache_bytes)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._images)

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """RGB / 255 [len(indices), 3, side, side].

        Raises:
            DataError: an image cannot be read, or has another size than its annotations say.
        """
        chosen = indices.tolist()
        pictures = zip(chosen, self._pictures(chosen), strict=True)
        return _as_inputs([self._letterboxes[index].framed(picture) for index, picture in pictures])

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """A mosaic of each image and three others, with its boxes."""
        others = rng.integers(len(self), size=(len(indices), 3))
        chosen = np.concatenate([indices[:, None], others], axis=1).ravel().tolist()
        pictures = zip(chosen, self._pictures(chosen), strict=True)
        boxed = [BoxedPicture(picture, self._images[index].boxes) for index, picture in pictures]
        mosaics = [augment(boxed[start : start + 4], self.input_shape[1], rng) for start in range(0, len(boxed), 4)]
        labels = _padded([mosaic.boxes for mosaic in mosaics])
        return Batch(_as_inputs([mosaic.pixels for mosaic in mosaics]), labels)

    def digest(self, index: int) -> str:
        """SHA-256 of the decoded and resized picture."""
        picture = self._pictures.one(index)
        return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Random images."""
        return some_of(count, len(self), rng)

    def truth(self, indices: NDArray[np.int64]) -> Truth:
        """``objects`` and ``crowds`` [n, boxes, 5]: class (-1 for none), left, top, right, bottom in pixels of inputs.

        ``regions`` [n, 4] are left, top, right and bottom of the images in them.
        """
        side = self.input_shape[-1]
        return {
            "objects": _corners(self.labels[indices], side),
            "crowds": _corners(self.crowds[indices], side),
            "regions": self.regions[indices] * side,
        }

    def _decode(self, index: int) -> Picture:
        image = self._images[index]
        return self._letterboxes[index].resized(decode_upright(self._source, image.member, image.size))


def detection_splits(data: Path, side: int) -> Splits:
    """The training and validation images of a folder or zip file in COCO's or YOLO's layout.

    Args:
        data: as `read_annotations` takes.
        side: of the square input in pixels, a multiple of 32.

    Raises:
        DataError: there is no such data, it is broken, or the side does not fit the networks' grids.
    """
    if side < CELL or side % CELL:
        below = max(CELL, side // CELL * CELL)
        raise DataError(
            f"Inputs of {side} x {side} pixels do not fit grids with cells of {CELL} pixels: "
            f"give --input-size a multiple of {CELL}, such as {below} or {below + CELL}"
        )
    source = open_source(data)
    train, test = (DetectionSplit(source, annotations, side) for annotations in read_annotations(source))
    return Splits(data.stem, train, test)


def read_annotations(source: Source) -> tuple[Annotations, Annotations]:
    """What is annotated for training and for evaluation, in COCO's or in YOLO's layout.

    Raises:
        DataError: neither layout is there, or what it says cannot be true.
    """
    members = sorted(source.members())
    if any(find_instances(members)):
        return read_coco(source, members)
    if find_labels(members):
        return read_yolo_labels(source, members)
    found = ", ".join(sorted({member.split("/")[0] for member in members})[:8]) or "nothing"
    raise DataError(f"{source.root} holds no annotations that are known here, only {found}. {LAYOUTS}")


def _as_inputs(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2), np.float32) / np.float32(255)


def _corners(labels: NDArray[np.float32], side: int) -> NDArray[np.float64]:
    """[n, boxes, 5] class, left, top, right and bottom in pixels of boxes by centre, width and height as shares."""
    boxes = labels.astype(np.float64)
    centres, halves = boxes[..., 1:3] * side, boxes[..., 3:] * side / 2
    return np.concatenate([boxes[..., :1], centres - halves, centres + halves], axis=-1)


def _padded(boxes: Sequence[Boxes]) -> NDArray[np.float32]:
    """[n, boxes, 5] of boxes [k, 5], with rows of class -1."""
    rows = np.zeros((len(boxes), max(len(some) for some in boxes), 5), np.float32)
    rows[..., 0] = PADDING
    for row, some in zip(rows, boxes, strict=True):
        row[: len(some)] = some
    return rows

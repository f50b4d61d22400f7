"""Augmentation of pictures with boxes: mosaics of four, moved and scaled, mirrored, their colours changed.

The amounts are those that YOLOv5 is trained with (its hyp.scratch-low).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.annotations import Boxes
from calibration.letterbox import GREY

SCALE, TRANSLATE = 0.5, 0.1
HUE, SATURATION, VALUE = 0.015, 0.7, 0.4
SMALLEST_PIXELS, SMALLEST_SHARE, LARGEST_ASPECT = 2.0, 0.1, 100.0
"""A box stays if it is this large, if this share of it is still seen, and if it is no more drawn out than this."""


@dataclass(frozen=True, slots=True)
class BoxedPicture:
    """A picture and what is in it.

    Args:
        pixels: [height, width, 3].
        boxes: [k, 5] class, centre and size as shares of the picture.
    """

    pixels: NDArray[np.uint8]
    boxes: Boxes


def augment(pictures: Sequence[BoxedPicture], side: int, rng: np.random.Generator) -> BoxedPicture:
    """A square picture made of four, as training sees it.

    Args:
        pictures: four, each at most ``side`` pixels wide and high.
        side: of the result, in pixels.
        rng: what it depends on.
    """
    canvas, corners = _mosaic(pictures, side, rng)
    scale = rng.uniform(1 - SCALE, 1 + SCALE)
    shift = rng.uniform(0.5 - TRANSLATE, 0.5 + TRANSLATE, 2) * side
    pixels = _moved(canvas, side, scale, shift)
    boxes = _as_boxes(_seen(_move(corners, side, scale, shift), side), side)
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
        boxes[:, 1] = 1 - boxes[:, 1]
    return BoxedPicture(_recoloured(pixels, rng), boxes)


def _mosaic(
    pictures: Sequence[BoxedPicture], side: int, rng: np.random.Generator
) -> tuple[Image.Image, NDArray[np.float64]]:
    """Four pictures that meet in a point of a canvas of twice the side, and their corners [k, 5] in its pixels."""
    canvas = Image.new("RGB", (2 * side, 2 * side), (GREY, GREY, GREY))
    x, y = (int(value) for value in rng.integers(side // 2, side + side // 2 + 1, 2))
    corners = []
    for picture, (right, below) in zip(pictures, ((0, 0), (1, 0), (0, 1), (1, 1)), strict=True):
        height, width = picture.pixels.shape[:2]
        left, top = x if right else x - width, y if below else y - height
        canvas.paste(Image.fromarray(picture.pixels), (left, top))
        kind, centre, half = picture.boxes[:, :1], picture.boxes[:, 1:3], picture.boxes[:, 3:] / 2
        spans = np.concatenate([centre - half, centre + half], axis=1) * (width, height, width, height)
        corners.append(np.concatenate([kind, spans + np.array([left, top, left, top])], axis=1))
    return canvas, np.concatenate(corners)


def _moved(canvas: Image.Image, side: int, scale: float, shift: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The square in which the canvas' middle lies at ``shift``, scaled."""
    offset_x, offset_y = side - shift / scale  # from the result's pixels to the canvas'
    image = canvas.transform(
        (side, side),
        Image.Transform.AFFINE,
        (1 / scale, 0, offset_x, 0, 1 / scale, offset_y),
        Image.Resampling.BILINEAR,
        fillcolor=(GREY, GREY, GREY),
    )
    return np.asarray(image)


def _move(corners: NDArray[np.float64], side: int, scale: float, shift: NDArray[np.float64]) -> NDArray[np.float64]:
    moved = corners.copy()
    moved[:, 1:] = (moved[:, 1:] - side) * scale + np.tile(shift, 2)
    return moved


def _seen(corners: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Boxes clipped to the square, without those of which too little is left."""
    clipped = corners.copy()
    clipped[:, 1:] = clipped[:, 1:].clip(0, side)
    before, (width, height) = _spans(corners), _spans(clipped)
    share = width * height / np.maximum(before[0] * before[1], 1e-9)
    aspect = np.maximum(width / np.maximum(height, 1e-9), height / np.maximum(width, 1e-9))
    large = np.minimum(width, height) > SMALLEST_PIXELS
    return clipped[large & (share > SMALLEST_SHARE) & (aspect < LARGEST_ASPECT)]


def _spans(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return corners[:, 3] - corners[:, 1], corners[:, 4] - corners[:, 2]


def _as_boxes(corners: NDArray[np.float64], side: int) -> Boxes:
    first, last = corners[:, 1:3], corners[:, 3:]
    return np.concatenate([corners[:, :1], (first + last) / 2 / side, (last - first) / side], axis=1)


def _recoloured(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Hue, saturation and value times factors around 1."""
    hue, saturation, value = rng.uniform(-1, 1, 3) * (HUE, SATURATION, VALUE) + 1
    levels = np.arange(256)
    table = [levels * hue % 256, (levels * saturation).clip(0, 255), (levels * value).clip(0, 255)]
    image = Image.fromarray(pixels).convert("HSV").point(np.concatenate(table).astype(int).tolist())
    return np.asarray(image.convert("RGB"))

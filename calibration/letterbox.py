"""Whole images in a square: the longer side fills it, grey surrounds the rest."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.annotations import Boxes

GREY = 114
"""What surrounds the image, as YOLOv5 has it."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Where an image lies in its square, in pixels.

    Args:
        side: of the square.
        width: of the resized image.
        height: likewise.
        left: grey columns before it.
        top: grey rows before it.
    """

    side: int
    width: int
    height: int
    left: int
    top: int

    @classmethod
    def of(cls, size: tuple[int, int], side: int) -> Self:
        """For an image of ``size``, its width and height in pixels."""
        ratio = side / max(size)
        width, height = (max(1, round(length * ratio)) for length in size)
        return cls(side, width, height, (side - width) // 2, (side - height) // 2)

    def resized(self, image: Image.Image) -> NDArray[np.uint8]:
        """The image [height, width, channels] without what surrounds it."""
        size = (self.width, self.height)
        return np.asarray(image if image.size == size else image.resize(size, Image.Resampling.BILINEAR))

    def framed(self, picture: NDArray[np.uint8], grey: int = GREY) -> NDArray[np.uint8]:
        """A resized picture in its square [side, side, channels]."""
        square = np.full((self.side, self.side, picture.shape[2]), grey, np.uint8)
        square[self.top : self.top + self.height, self.left : self.left + self.width] = picture
        return square

    def boxes(self, boxes: Boxes) -> Boxes:
        """Boxes of the image [k, 5] as shares of the square."""
        shift, scale = (self.left, self.top, 0, 0), (self.width, self.height, self.width, self.height)
        return np.concatenate([boxes[:, :1], (boxes[:, 1:] * scale + shift) / self.side], axis=1)

    @property
    def region(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the image as shares of the square."""
        edges = self.left, self.top, self.left + self.width, self.top + self.height
        left, top, right, bottom = (edge / self.side for edge in edges)
        return left, top, right, bottom

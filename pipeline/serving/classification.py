"""Pictures that go into a network, and named probabilities that come out of a classifier, for people."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from calibration.errors import DataError

Picture = str | Path | Image.Image | NDArray[np.uint8]
"""An image file, an opened image, or pixels [height, width] or [height, width, 3]."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class and how probable it is, between 0 and 1."""

    name: str
    probability: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"class": self.name, "probability": self.probability}


def rank(logits: NDArray[Any], classes: Sequence[str]) -> list[list[ClassScore]]:
    """Every class of every row of logits [n, classes], the most probable one first."""
    return [[ClassScore(classes[i], float(row[i])) for i in np.argsort(-row, kind="stable")] for row in softmax(logits)]


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """[n, classes] probabilities of logits."""
    exponents = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
    return probabilities


def open_picture(picture: Picture) -> Image.Image:
    """A decoded image.

    Raises:
        DataError: it is no readable image.
    """
    try:
        if isinstance(picture, Image.Image):
            return picture
        if isinstance(picture, np.ndarray):
            return Image.fromarray(picture)
        image = Image.open(picture)
        image.load()
        return image
    except FileNotFoundError:
        raise DataError(f"There is no image {picture}.") from None
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        what = "The array" if isinstance(picture, np.ndarray) else str(picture)
        raise DataError(f"{what} is not a readable image ({error}).") from error


def upright(image: Image.Image) -> Image.Image:
    """The image as people see it, turned as its camera says."""
    return ImageOps.exif_transpose(image)

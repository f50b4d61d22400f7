"""From decoded pictures to network inputs: geometry, augmentation, normalisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.errors import DataError
from calibration.letterbox import Letterbox

Picture = NDArray[np.uint8]
"""One decoded picture [height, width, channels]."""


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Pixels become (pixel / scale - mean) / std, channel by channel.

    Args:
        mean: of every channel, after scaling.
        std: of every channel, after scaling.
        scale: the largest pixel value.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float = 255.0

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Network inputs [n, channels, height, width] of pictures [n, height, width, channels]."""
        scaled = pictures.astype(np.float32) / np.float32(self.scale)
        scaled -= np.asarray(self.mean, np.float32)
        scaled /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


IMAGES = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""The usual one of networks trained on photographs."""


def random_crop(pictures: NDArray[np.uint8], padding: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures [n, h, w, c] shifted by up to ``padding`` pixels each way, with black coming in."""
    count, height, width, _ = pictures.shape
    padded = np.pad(pictures, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    tops, lefts = rng.integers(0, 2 * padding + 1, (2, count))
    out = np.empty_like(pictures)
    for index, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        out[index] = padded[index, top : top + height, left : left + width]
    return out


def random_flip(pictures: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures [n, h, w, c], every second one mirrored left to right on average."""
    mirrored = rng.random(len(pictures)) < 0.5
    return np.where(mirrored[:, None, None, None], pictures[:, :, ::-1], pictures)


class Geometry(Protocol):
    """How files of any size become pictures of one size."""

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width that the network sees, in pixels."""

    @property
    def shorter_side(self) -> int | None:
        """Pixels that the shorter side is resized to before the middle is cut out; None where nothing is cut."""

    def keep(self, image: Image.Image) -> Picture:
        """What is remembered of a decoded image.

        Raises:
            DataError: the image does not fit the rest of the data set.
        """

    def plain(self, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
        """Pictures [n, *input_size, channels] for evaluation and calibration."""

    def augmented(self, pictures: Sequence[Picture], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Pictures [n, *input_size, channels] for training."""


@dataclass(frozen=True, slots=True)
class SmallPictures:
    """Small pictures of one size keep it; training pads by 4, crops and mirrors.

    Args:
        input_size: height and width in pixels.
    """

    input_size: tuple[int, int]

    @property
    def shorter_side(self) -> None:
        """None: the whole picture is seen."""

    def keep(self, image: Image.Image) -> Picture:
        """The whole image, which must have the data set's size."""
        if image.size[::-1] != self.input_size:
            (height, width), (here, there) = self.input_size, image.size[::-1]
            raise DataError(
                f"is {here}x{there} pixels where the others are {height}x{width}: small images must all have one size. "
                "Resize or remove it"
            )
        return np.asarray(image)

    def plain(self, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
        """The pictures as they are."""
        return np.stack(pictures)

    def augmented(self, pictures: Sequence[Picture], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Random crops of the pictures padded by 4, mirrored at random."""
        return random_flip(random_crop(np.stack(pictures), 4, rng), rng)


@dataclass(frozen=True, slots=True)
class LargePictures:
    """Pictures of any size: the shorter side becomes 256 pixels, the network sees 224 x 224 of it.

    Training crops come from the resized picture, so that every file is decoded once.
    """

    shorter_side: int = 256
    input_size: tuple[int, int] = (224, 224)

    def keep(self, image: Image.Image) -> Picture:
        """The image with its shorter side resized."""
        factor = self.shorter_side / min(image.size)
        width, height = (max(self.shorter_side, round(side * factor)) for side in image.size)
        return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))

    def plain(self, pictures: Sequence[Picture]) -> NDArray[np.uint8]:
        """The middle of every picture."""
        height, width = self.input_size
        crops = []
        for picture in pictures:
            top, left = (picture.shape[0] - height + 1) // 2, (picture.shape[1] - width + 1) // 2
            crops.append(picture[top : top + height, left : left + width])
        return np.stack(crops)

    def augmented(self, pictures: Sequence[Picture], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Crops of 8-100% of the area, 3/4 to 4/3 in aspect (Szegedy et al. 2015), resized, mirrored at random."""
        return random_flip(np.stack([self._resized_crop(picture, rng) for picture in pictures]), rng)

    def _resized_crop(self, picture: Picture, rng: np.random.Generator) -> Picture:
        height, width = picture.shape[:2]
        area = height * width * rng.uniform(0.08, 1.0)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        crop_width = min(width, max(1, round(np.sqrt(area * aspect))))
        crop_height = min(height, max(1, round(np.sqrt(area / aspect))))
        left, top = rng.integers(0, width - crop_width + 1), rng.integers(0, height - crop_height + 1)
        box = (int(left), int(top), int(left) + crop_width, int(top) + crop_height)
        resized = Image.fromarray(picture).resize(self.input_size[::-1], Image.Resampling.BILINEAR, box=box)
        return np.asarray(resized)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How any image becomes an input of a trained network: plain data that is kept beside the network.

    Args:
        mode: colours, as Pillow names them: ``RGB`` or ``L``.
        size: height and width that the network sees, in pixels.
        mean: of every channel, pixels being between 0 and 1.
        std: the same.
        shorter_side: as a `Geometry` has it; where it is None, the whole image is resized to ``size``.
        frame: grey level around the whole image, which then keeps its proportions and has one side as in ``size``.
    """

    mode: str
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shorter_side: int | None = None
    frame: int | None = None

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """One image as the network sees it, [channels, height, width]; the same as for evaluation."""
        coloured = image.convert(self.mode)
        if self.shorter_side:
            large = LargePictures(self.shorter_side, self.size)
            pictures = large.plain([large.keep(coloured)])
        elif self.frame is not None:
            letterbox = Letterbox.of(coloured.size, self.size[0])
            pictures = letterbox.framed(letterbox.resized(coloured), self.frame)[None]
        else:
            pictures = np.asarray(coloured.resize(self.size[::-1], Image.Resampling.BILINEAR))[None]
        (inputs,) = Normalisation(self.mean, self.std)(pictures.reshape(1, *self.size, -1))
        return inputs  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """From plain data, lists in the place of tuples."""
        height, width = data["size"]
        geometry = data["shorter_side"], data.get("frame")
        return cls(data["mode"], (height, width), tuple(data["mean"]), tuple(data["std"]), *geometry)

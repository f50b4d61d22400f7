"""Image folders, plain or zipped: an index at once, pictures when they are asked for."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from calibration.datasets import Batch, Labelled
from calibration.decoding import SUFFIXES, open_image, unreadable
from calibration.errors import DataError
from calibration.picture_cache import PictureCache
from calibration.pictures import (
    IMAGES,
    Geometry,
    LargePictures,
    Normalisation,
    Picture,
    Preprocessing,
    SmallPictures,
)
from calibration.sources import Source, open_source

SMALL_SIDE = 64
"""Pictures no larger than this on both sides stay at their size."""


@dataclass(frozen=True, slots=True)
class Index:
    """One split's files.

    Args:
        classes: in alphabetical order, which is the order of the labels.
        members: the files, class by class, in alphabetical order.
        labels: [n] index into ``classes`` of every file.
    """

    classes: tuple[str, ...]
    members: tuple[str, ...]
    labels: NDArray[np.int64]


class ImageSplit(Labelled):
    """Images that are decoded when asked for, and kept in memory up to a limit.

    Args:
        source: where the files are.
        index: which files belong to the split.
        geometry: how they become pictures of one size.
        normalisation: what pixels become before the network sees them.
        cache_bytes: how much decoded data is kept at most.
    """

    def __init__(
        self,
        source: Source,
        index: Index,
        geometry: Geometry,
        normalisation: Normalisation = IMAGES,
        cache_bytes: int = 2**30,
    ):
        self.classes = index.classes
        self.labels = self.strata = index.labels
        self.input_shape: tuple[int, ...] = (3, *geometry.input_size)
        self.preprocessing: Preprocessing | None = Preprocessing(
            "RGB", geometry.input_size, normalisation.mean, normalisation.std, geometry.shorter_side
        )
        self._source = source
        self._members = index.members
        self._geometry = geometry
        self._normalisation = normalisation
        self._pictures = PictureCache(self._decode, cache_bytes)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._members)

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Normalised inputs [len(indices), 3, height, width].

        Raises:
            DataError: an image cannot be read or does not fit the others.
        """
        return self._normalisation(self._geometry.plain(self._pictures(indices.tolist())))

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The same images augmented, and their classes.

        Raises:
            DataError: as `inputs` does.
        """
        pictures = self._geometry.augmented(self._pictures(indices.tolist()), rng)
        return Batch(self._normalisation(pictures), self.labels[indices])

    def digest(self, index: int) -> str:
        """SHA-256 of the decoded picture: the same in any lossless file format."""
        picture = self._pictures.one(index)
        return hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()

    def _decode(self, index: int) -> Picture:
        member = self._members[index]
        with open_image(self._source, member) as image:
            try:
                return self._geometry.keep(image.convert("RGB"))
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise unreadable(self._source, member, error) from error
            except DataError as error:
                raise DataError(f"{self._source.root}: {member} {error}") from error


def image_splits(data: Path, normalisation: Normalisation | None = None) -> tuple[ImageSplit, ImageSplit]:
    """The train and test splits of a folder or zip file of images.

    Args:
        data: with ``train/<class>/`` and ``test/<class>/``, or ``val/<class>/`` in the place of test.
        normalisation: what pixels become before the network sees them; None for ImageNet's.

    Raises:
        DataError: the path is missing or broken, a split or a class is missing or empty, or an image is unreadable.
    """
    source = open_source(data)
    members = sorted(source.members())
    folders = {member.split("/")[0] for member in members if "/" in member}
    test_folder = "test" if "test" in folders else "val"
    for folder in ("train", test_folder):
        if folder not in folders:
            found = ", ".join(sorted(folders)[:8]) or "no folder"
            wanted = "train/<class>/" if folder == "train" else "test/<class>/ (or val/<class>/)"
            raise DataError(f"{data} has no {wanted}, only {found}. Lay it out as train/<class>/ and test/<class>/")
    train, test = (_index(data, folder, members) for folder in ("train", test_folder))
    if train.classes != test.classes:
        only = sorted(set(train.classes) ^ set(test.classes))
        raise DataError(f"{data}: train and {test_folder} must have the same classes; in only one of them: {only[:8]}")
    geometry = _geometry(source, train, test)
    chosen = normalisation or IMAGES
    return ImageSplit(source, train, geometry, chosen), ImageSplit(source, test, geometry, chosen)


def _index(data: Path, folder: str, members: Sequence[str]) -> Index:
    """The index of one split."""
    by_class: dict[str, list[str]] = {}
    for member in members:
        parts = member.split("/")
        if parts[0] != folder or len(parts) < 3 or any(part.startswith(".") for part in parts):
            continue
        files = by_class.setdefault(parts[1], [])
        if parts[-1].lower().endswith(SUFFIXES):
            files.append(member)
    if not by_class:
        raise DataError(f"{data}: {folder}/ has no class folders. Lay it out as {folder}/<class>/<image>")
    for name, files in by_class.items():
        if not files:
            raise DataError(f"{data}: class {folder}/{name}/ has no images ({', '.join(SUFFIXES)}). Fill or remove it")
    classes = tuple(sorted(by_class))
    labels = np.repeat(np.arange(len(classes)), [len(by_class[name]) for name in classes])
    return Index(classes, tuple(file for name in classes for file in by_class[name]), labels.astype(np.int64))


def _geometry(source: Source, *indices: Index) -> Geometry:
    """Small or large pictures, judged by the first image of every class."""
    sizes = {}
    for index in indices:
        for first in np.unique(index.labels, return_index=True)[1]:
            member = index.members[first]
            with open_image(source, member) as image:
                sizes[image.size] = member
    if any(max(size) > SMALL_SIDE for size in sizes):
        return LargePictures()
    if len(sizes) > 1:
        examples = ", ".join(f"{member} {width}x{height}" for (width, height), member in list(sizes.items())[:3])
        raise DataError(f"{source.root}: small images must all have one size, but there are {examples}. Resize them")
    width, height = next(iter(sizes))
    return SmallPictures((height, width))

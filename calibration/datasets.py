"""What the model sees: labelled data in two splits that never mix."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.pictures import Normalisation, Preprocessing


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step of training sees.

    Args:
        inputs: [n, *input_shape].
        labels: [n, …] what the network should say of each; ragged ones are padded.
    """

    inputs: NDArray[Any]
    labels: NDArray[Any]


Truth = Mapping[str, NDArray[Any]]
"""What is right of some samples: plain arrays by name, which an .npz file holds."""


class Split(Protocol):
    """Samples that can be drawn by index, decoded when they are asked for.

    A sample is one array: an image [channels, height, width] in float32, or token sequences [k, length] in int64, the
    k tensors of a text stacked.

    ``classes`` names what the network tells apart, empty where it is nothing. ``labels`` [n, …] is what it should say
    of each sample, ``strata`` [n] the group of each, of which calibration draws equal shares. ``preprocessing`` says
    how a new image becomes a sample; None where samples are no images.
    """

    classes: tuple[str, ...]
    labels: NDArray[Any]
    strata: NDArray[np.int64]
    input_shape: tuple[int, ...]
    preprocessing: Preprocessing | None

    def __len__(self) -> int:
        """Number of samples."""

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Network inputs [len(indices), *input_shape], as for evaluation."""

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The same samples augmented for training, with their labels."""

    def digest(self, index: int) -> str:
        """SHA-256 of one sample's content before normalisation: the same picture has the same digest.

        May be called from several threads at once.
        """

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Ascending rows of what belongs to ``count`` random things to judge, or to all where there are fewer."""

    def truth(self, indices: NDArray[np.int64]) -> Truth:
        """What is right of the samples, by which a deployed network is judged."""


class Labelled:
    """Samples that are judged one by one, by their labels."""

    labels: NDArray[Any]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Random samples."""
        return some_of(count, len(self.labels), rng)

    def truth(self, indices: NDArray[np.int64]) -> Truth:
        """``labels`` [len(indices), …]."""
        return {"labels": np.asarray(self.labels)[indices]}


def some_of(count: int, of: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """[min(count, of)] ascending numbers: data are often in the order of their classes, so they are drawn."""
    return np.sort(rng.permutation(of)[:count]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Splits:
    """A data set: what may be trained and calibrated on, and what only evaluation may see.

    Args:
        bundled: files that make samples of what users have, such as a tokenizer, by name; they ship with the network.
    """

    name: str
    train: Split
    test: Split
    bundled: Mapping[str, str] = field(default_factory=dict)


def load_splits(data: Path | None, normalisation: Normalisation | None = None) -> Splits:
    """The data set in ``data``, or the embedded handwritten digits.

    Args:
        data: a folder or zip file with ``train/<class>/`` and ``test/<class>/`` (or ``val/<class>/``) full of
            images, or None for scikit-learn's digits (8 x 8 pixels, 10 classes).
        normalisation: what pixels become before the network sees them; None for the data's usual one.

    Raises:
        DataError: the data is missing, broken or laid out otherwise.
    """
    if data is None:
        from calibration.digits import digit_splits  # imports scikit-learn, which is slow

        return Splits("digits", *digit_splits(normalisation))
    from calibration.images import image_splits

    return Splits(data.stem, *image_splits(data, normalisation))

"""What the model sees: labelled data in two splits that never mix."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.pictures import Normalisation, Preprocessing


class Split(Protocol):
    """Samples that can be drawn by index, decoded when they are asked for.

    ``preprocessing`` says how a new image becomes such an input; None where inputs are no images.
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    input_shape: tuple[int, ...]
    preprocessing: Preprocessing | None

    def __len__(self) -> int:
        """Number of samples."""

    def inputs(self, indices: NDArray[np.int64], augment: np.random.Generator | None = None) -> NDArray[np.float32]:
        """Normalised network inputs [len(indices), *input_shape], augmented as for training if asked."""

    def digest(self, index: int) -> str:
        """SHA-256 of one sample's content before normalisation: the same picture has the same digest.

        May be called from several threads at once.
        """


@dataclass(frozen=True, slots=True)
class Splits:
    """A data set: what may be trained and calibrated on, and what only evaluation may see."""

    name: str
    train: Split
    test: Split


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

"""The embedded data: scikit-learn's 1,797 handwritten digits, 8 x 8 pixels."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Batch, Labelled
from calibration.pictures import Normalisation, Preprocessing, random_crop

DIGITS = Normalisation((0.3053,), (0.3760,), scale=16.0)
"""Mean and spread of all digits."""


class DigitSplit(Labelled):
    """Digits in memory; training shifts them by up to a pixel.

    Args:
        pictures: [n, 8, 8, 1] with values 0 to 16.
        labels: [n] the digit.
        normalisation: what pixels become before the network sees them.
    """

    classes = tuple(str(digit) for digit in range(10))
    input_shape: tuple[int, ...] = (1, 8, 8)

    def __init__(self, pictures: NDArray[np.uint8], labels: NDArray[np.int64], normalisation: Normalisation):
        self.labels = self.strata = labels
        self._pictures = pictures
        self._normalisation = normalisation
        self.preprocessing: Preprocessing | None = Preprocessing("L", (8, 8), normalisation.mean, normalisation.std)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.labels)

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Normalised inputs [len(indices), 1, 8, 8]."""
        return self._normalisation(self._pictures[indices])

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        """The same digits shifted by up to a pixel, and which they are."""
        return Batch(self._normalisation(random_crop(self._pictures[indices], 1, rng)), self.labels[indices])

    def digest(self, index: int) -> str:
        """SHA-256 of one digit's pixels."""
        return hashlib.sha256(self._pictures[index].tobytes()).hexdigest()


def digit_splits(normalisation: Normalisation | None = None, seed: int = 0) -> tuple[DigitSplit, DigitSplit]:
    """1,347 digits to train on and 450 to test on, every class in both in equal shares."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pictures = data.images.astype(np.uint8)[..., None]
    labels = data.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=450, stratify=labels, random_state=seed)
    chosen = normalisation or DIGITS
    return DigitSplit(pictures[train], labels[train], chosen), DigitSplit(pictures[test], labels[test], chosen)

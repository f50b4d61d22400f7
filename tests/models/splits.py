"""Made-up data sets for tests."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Batch, Labelled, Splits


class ArraySplit(Labelled):
    """Samples held in memory; augmentation mirrors some of them."""

    def __init__(self, inputs: NDArray[np.float32], labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
        self._inputs, self.classes = inputs, classes
        self.labels = self.strata = labels
        self.input_shape = inputs.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return self._inputs[indices]

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        chosen = self._inputs[indices].copy()
        mirrored = rng.random(len(chosen)) < 0.5
        chosen[mirrored] = chosen[mirrored][..., ::-1]
        return Batch(chosen, self.labels[indices])

    def digest(self, index: int) -> str:
        return hashlib.sha256(self._inputs[index].tobytes()).hexdigest()


def stripes(samples: int = 256, channels: int = 1, classes: int = 4, size: int = 8, seed: int = 0) -> Splits:
    """Noisy pictures whose class is the row pair that is bright: easily learnt, and the same when mirrored."""
    rng = np.random.default_rng(seed)
    names = tuple(f"class{i}" for i in range(classes))

    def split(count: int) -> ArraySplit:
        labels = np.arange(count, dtype=np.int64) % classes
        pictures = rng.normal(0, 0.5, (count, channels, size, size)).astype(np.float32)
        for picture, label in zip(pictures, labels, strict=True):
            picture[:, 2 * label : 2 * label + 2] += 1
        return ArraySplit(pictures, labels, names)

    return Splits("stripes", split(samples), split(samples // 2))

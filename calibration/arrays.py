"""Samples that are arrays in memory."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from calibration.datasets import Batch, Labelled
from calibration.pictures import Preprocessing


class ArraySplit(Labelled):
    """Samples in memory, which are trained on as they are; implements `calibration.datasets.Split`.

    Args:
        samples: [n, …].
        labels: [n, …] what the network should say of each.
        strata: [n] group of each sample; None puts all into one.
        classes: what the network tells apart.
        dtype: of what networks get; None for that of ``samples``.
    """

    def __init__(
        self,
        samples: NDArray[Any],
        labels: NDArray[Any],
        strata: NDArray[np.int64] | None = None,
        classes: tuple[str, ...] = (),
        dtype: DTypeLike | None = None,
    ) -> None:
        self.classes = classes
        self.labels = labels
        self.strata = np.zeros(len(samples), np.int64) if strata is None else strata
        self.input_shape: tuple[int, ...] = samples.shape[1:]
        self.preprocessing: Preprocessing | None = None
        self._samples = samples
        self._dtype = samples.dtype if dtype is None else dtype

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def inputs(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Samples [len(indices), …]."""
        return self._samples[indices].astype(self._dtype)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:  # noqa: ARG002 - nothing is drawn
        """The same with their labels."""
        return Batch(self.inputs(indices), self.labels[indices])

    def digest(self, index: int) -> str:
        """SHA-256 of one sample."""
        return hashlib.sha256(self._samples[index].tobytes()).hexdigest()

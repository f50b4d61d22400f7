"""Calibration sets: a few training samples that stand for the data, never any that evaluation uses."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration.datasets import Split, Splits
from calibration.errors import DataError
from calibration.finite import require_finite

USUAL_SIZE = 1024
FEWEST_OTHERS = 32
"""Samples that say something of a network."""
KEPT_BYTES = 2**29
"""Samples that take no more are kept in memory: to decode them again would cost more time than they cost memory."""


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Samples of a training split.

    Args:
        indices: into the training split, ascending.
        seed: what they were drawn with.
        sha256: of the samples' content, in the order of ``indices``.
    """

    indices: tuple[int, ...]
    seed: int
    sha256: str

    def samples(self, split: Split, order: NDArray[np.int64] | None = None) -> "CalibrationSamples":
        """The samples, decoded when they are asked for.

        Args:
            split: the training split that the set was drawn from.
            order: positions in the set; None for its own order.

        Raises:
            DataError: the split's samples are no longer those that were drawn.
        """
        if max(self.indices) >= len(split):
            raise DataError(f"The calibration set names sample {max(self.indices)} of {len(split)}: draw it again")
        if _content(_digests(split, self.indices)) != self.sha256:
            raise DataError("The data has changed since the calibration set was drawn: draw it again")
        indices = np.asarray(self.indices, np.int64)
        return CalibrationSamples(split, indices if order is None else indices[order])

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return {"schema": 1, "indices": list(self.indices), "seed": self.seed, "sha256": self.sha256}


class CalibrationSamples:
    """Network inputs of a calibration set, as for evaluation; kept in memory only where they are small.

    Args:
        split: the training split.
        indices: [n] into it.
    """

    def __init__(self, split: Split, indices: NDArray[np.int64]) -> None:
        self._split, self._indices = split, indices

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._indices)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Inputs [k, *input_shape] of the samples at these positions.

        Raises:
            DataError: one holds NaN or infinity, or cannot be read.
        """
        return self._read(np.arange(len(self))[rows]) if self._kept is None else self._kept[rows]

    def batches(self, size: int, rows: NDArray[np.int64] | None = None) -> "CalibrationBatches":
        """The samples in their order, or those at ``rows``, ``size`` at a time."""
        return CalibrationBatches(self, np.arange(len(self)) if rows is None else rows, size)

    @cached_property
    def _kept(self) -> NDArray[Any] | None:
        """All inputs [n, *input_shape] where they are small enough."""
        is_small = len(self) * self._read(np.arange(1)).nbytes <= KEPT_BYTES
        return self._read(np.arange(len(self))) if is_small else None

    def _read(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        inputs = self._split.inputs(self._indices[rows])
        require_finite(inputs, "calibration", self._indices[rows])
        return inputs


@dataclass(frozen=True, slots=True)
class CalibrationBatches:
    """Batches of samples as tensors; can be gone through again and again, and holds one at a time.

    They are as equal as can be, `size` at most: a last one of a single sample would have no statistics for batch norm.
    """

    samples: CalibrationSamples
    rows: NDArray[np.int64]
    size: int

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[Tensor]:
        """Tensors [k, *input_shape]."""
        for rows in np.array_split(self.rows, max(1, len(self))):
            if len(rows):
                yield torch.from_numpy(self.samples[rows])


def draw_calibration_set(splits: Splits, size: int | None, seed: int) -> CalibrationSet:
    """Draw ``size`` training samples at random, the same number of every stratum as far as there are enough.

    Samples whose content also occurs in the evaluation split are never drawn.

    Args:
        splits: where to draw from.
        size: number of samples, at least 1; None for 1024, or for all that there are.
        seed: the same seed draws the same samples.

    Raises:
        DataError: there are not ``size`` such samples.
    """
    wanted = USUAL_SIZE if size is None else size
    if wanted < 1:
        raise DataError(f"A calibration set needs at least one sample, not {size}")
    drawn = _drawn(splits, wanted, seed)
    if len(drawn) < (size or 1):
        raise DataError(
            f"A calibration set of {size or wanted} samples was asked for, but {splits.name} has {len(drawn)} training "
            "samples that evaluation does not use. Ask for fewer"
        )
    return CalibrationSet(tuple(drawn), seed, _content(drawn.values()))


def draw_others(splits: Splits, calibration: CalibrationSet, count: int) -> NDArray[np.int64]:
    """Ascending indices of up to ``count`` training samples that are in neither the calibration nor the test set.

    Those of the calibration set where there are hardly any others.
    """
    drawn = _drawn(splits, len(calibration.indices) + count, calibration.seed)
    others = np.setdiff1d(list(drawn), calibration.indices)[:count]
    return others if len(others) >= FEWEST_OTHERS else np.asarray(calibration.indices, np.int64)


def _drawn(splits: Splits, wanted: int, seed: int) -> dict[int, str]:
    """Index → digest of up to ``wanted`` training samples, ascending; of more, the first ones are those of fewer."""
    held_out = set(_all_digests(splits.test))
    rng = np.random.default_rng(seed)
    strata = splits.train.strata
    shuffled, tie = rng.permutation(len(strata)), rng.permutation(int(strata.max(initial=0)) + 1)
    digests: dict[int, str] = {}
    while True:  # until every sample that would be drawn is known to be absent from the evaluation split
        drawn = [int(index) for index in _balanced(shuffled, strata, tie)[:wanted]]
        unknown = [index for index in drawn if index not in digests]
        if not unknown:
            break
        digests.update(zip(unknown, _digests(splits.train, unknown), strict=True))
        shuffled = shuffled[[digests.get(int(index)) not in held_out for index in shuffled]]
    return {index: digests[index] for index in sorted(drawn)}


def content_digest(split: Split) -> str:
    """SHA-256 of all samples of a split and of what is right of them."""
    truth = hashlib.sha256()
    for name, array in sorted(split.truth(np.arange(len(split))).items()):
        truth.update(f"{name} {array.dtype} {array.shape}".encode())
        for row in array if array.ndim else [array]:  # texts are padded to the longest: not all of them at once
            truth.update(row.tobytes() if isinstance(row, np.ndarray | np.generic) else str(row).encode())
    return _content((*_all_digests(split), truth.hexdigest()))


def labels_digest(split: Split) -> str:
    """SHA-256 of how many samples a split has and of their labels: quick, where pictures would have to be decoded."""
    labels = np.ascontiguousarray(split.labels)
    return hashlib.sha256(f"{len(split)} {labels.dtype} {labels.shape}".encode() + labels.tobytes()).hexdigest()


def _balanced(shuffled: NDArray[np.int64], strata: NDArray[np.int64], tie: NDArray[np.int64]) -> NDArray[np.int64]:
    """Samples reordered such that every prefix holds the strata in shares as equal as can be, in turns of ``tie``."""
    ordered = shuffled[np.argsort(strata[shuffled], kind="stable")]
    present, counts = np.unique(strata[shuffled], return_counts=True)
    turn = np.concatenate([np.arange(count) for count in counts]) if len(counts) else np.arange(0)
    return ordered[np.lexsort((np.repeat(tie[present], counts), turn))]


def _digests(split: Split, indices: Iterable[int]) -> list[str]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(split.digest, indices))


_LAST: list[tuple[Split, tuple[str, ...]]] = []
"""The split whose samples were all digested last, for which pictures had to be decoded."""


def _all_digests(split: Split) -> tuple[str, ...]:
    if not _LAST or _LAST[0][0] is not split:
        _LAST[:] = [(split, tuple(_digests(split, range(len(split)))))]
    return _LAST[0][1]


def _content(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()

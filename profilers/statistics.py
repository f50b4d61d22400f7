"""Intervals for latency ratios, from the raw samples of several processes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float
    confidence: float

    @property
    def half_width(self) -> float:
        """Half the interval's width relative to the value."""
        return (self.high - self.low) / (2 * self.value)


APART = 1.6
"""Cores are apart where a round trip between them takes this multiple of the shortest one seen."""


def undisturbed_rounds(
    distance_s: Sequence[Sequence[float | None]], nearest_s: float | None = None
) -> list[NDArray[np.bool_]]:
    """Rounds in which the cores were as near to each other as they can be, for every process.

    Turns cancel what slows both models by one factor. Cores that a hypervisor has moved apart cost both the same
    *time*, and the faster model the larger share of its own. The distance decides alone, so that no round is left out
    for its ratio.

    Args:
        distance_s: [rounds] seconds of a round trip between the cores a process; None for a single core.
        nearest_s: the shortest one known; these may know a shorter one.
    """
    distances = [np.array([np.nan if s is None else s for s in process], np.float64) for process in distance_s]
    known = [float(s) for process in distances for s in process if not np.isnan(s)]
    limit_s = APART * min([*known, nearest_s or np.inf], default=np.inf)
    return [~(process > limit_s) for process in distances]


def speedup_interval(
    baseline_s: Sequence[ArrayLike],
    compressed_s: Sequence[ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Interval:
    """Speedup baseline/compressed with a bootstrap interval by process block.

    The value is the geometric mean over processes of the ratio of medians. Each resample draws processes, and
    within each of them rounds (Davison & Hinkley 1997, 3.8); since a handful of processes shows too little of its
    own spread, the interval is widened by sqrt(n / (n - 1)).

    Args:
        baseline_s: one array [rounds] of seconds a process.
        compressed_s: the same, of the same rounds.

    Raises:
        ValueError: fewer than two processes, or processes without samples.
    """
    count = len(baseline_s)
    if count < 2 or count != len(compressed_s):
        raise ValueError(f"an interval needs at least two processes, got {count} and {len(compressed_s)}")
    rng = np.random.default_rng(seed)
    pairs = [
        (np.asarray(base, np.float64), np.asarray(comp, np.float64))
        for base, comp in zip(baseline_s, compressed_s, strict=True)
    ]
    centre = float(np.mean([_log_ratio(base, comp) for base, comp in pairs]))
    inner = np.stack([_resampled_log_ratios(base, comp, rng) for base, comp in pairs])
    drawn = inner[rng.integers(count, size=(resamples, count)), rng.integers(inner.shape[1], size=(resamples, count))]
    means = drawn.mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    widen = np.sqrt(count / (count - 1))
    return Interval(
        float(np.exp(centre)),
        float(np.exp(centre + (low - centre) * widen)),
        float(np.exp(centre + (high - centre) * widen)),
        confidence,
    )


def _log_ratio(baseline_s: NDArray[np.float64], compressed_s: NDArray[np.float64]) -> float:
    if not len(baseline_s) or len(baseline_s) != len(compressed_s):
        raise ValueError("every process needs the same, positive number of samples of both models")
    return float(np.log(np.median(baseline_s) / np.median(compressed_s)))


def _resampled_log_ratios(
    baseline_s: NDArray[np.float64], compressed_s: NDArray[np.float64], rng: np.random.Generator, count: int = 200
) -> NDArray[np.float64]:
    rounds = rng.integers(len(baseline_s), size=(count, len(baseline_s)))
    ratios: NDArray[np.float64] = np.log(
        np.median(baseline_s[rounds], axis=1) / np.median(compressed_s[rounds], axis=1)
    )
    return ratios

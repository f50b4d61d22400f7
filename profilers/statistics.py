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
DISTURBED = 1.05
"""Neighbours use the machine where the baseline runs this much slower than in its quiet tenth."""
WINDOW = 9
"""Rounds whose median says how slow the baseline was around one of them."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is known of the undisturbed machine.

    Args:
        distance_s: round trip of a cache line between the cores when they are as near as they can be.
        baseline_s: latency of the baseline then.
    """

    distance_s: float | None = None
    baseline_s: float | None = None


def undisturbed_rounds(
    baseline_s: Sequence[ArrayLike], distance_s: Sequence[Sequence[float | None]], quiet: Quiet | None = None
) -> list[NDArray[np.bool_]]:
    """Rounds with the cores near each other and the baseline as fast as on the quiet machine, for every process.

    Turns cancel what slows both models by one factor. Cores that a hypervisor has moved apart, or neighbours that use
    up the memory's bandwidth, cost both about the same *time*, and the faster model the larger share of its own. The
    distance and the baseline decide alone, so that no round is left out for its ratio.

    Args:
        baseline_s: [rounds] seconds of the baseline a process.
        distance_s: [rounds] seconds of a round trip between the cores a process; None for a single core.
        quiet: what is known already; these samples may know better.
    """
    quiet = quiet or Quiet()
    local = [_local_medians(np.asarray(samples, np.float64)) for samples in baseline_s]
    distances = [np.array([np.nan if s is None else s for s in process], np.float64) for process in distance_s]
    known = [float(s) for process in distances for s in process if not np.isnan(s)]
    near_s = APART * min([*known, quiet.distance_s or np.inf], default=np.inf)
    near = [~(process > near_s) for process in distances]
    fast = [medians[keep] for medians, keep in zip(local, near, strict=True) if keep.any()]
    quiet_s = [float(np.quantile(np.concatenate(fast), 0.1))] if fast else []
    limit_s = DISTURBED * min([*quiet_s, quiet.baseline_s or np.inf], default=np.inf)
    return [keep & (medians <= limit_s) for medians, keep in zip(local, near, strict=True)]


def _local_medians(samples_s: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(samples_s) <= WINDOW:
        return np.full(len(samples_s), np.median(samples_s))
    padded = np.pad(samples_s, WINDOW // 2, mode="reflect")
    medians: NDArray[np.float64] = np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW), axis=1)
    return medians


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

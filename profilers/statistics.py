"""Intervals for latency ratios, from the raw samples of several processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from profilers.core_distance import NEAR
from profilers.measure import Block, Measurement
from profilers.waiting import most_waiting


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


FEWEST_ROUNDS = 3
"""Undisturbed rounds that a compilation needs to count."""
QUIET_SHARE = 0.25
"""Of all rounds: fewer undisturbed ones scatter, and speak for a state in which the machine hardly ever is."""
USUAL = 0.25
"""Of the processes' least shares of waiting, the quantile that a machine is held to: not the luckiest one's."""


Process = list[Block]
"""Samples of one process, a pair a compilation."""


def by_process(measured: Sequence[Measurement], undisturbed: bool, nearest_s: float | None = None) -> list[Process]:
    """Samples of every process, of the undisturbed rounds alone if asked.

    Args:
        measured: one measurement a process.
        undisturbed: leave out the other rounds, compilations with too few such rounds, processes with none of those.
        nearest_s: as in `undisturbed_rounds`.
    """
    if not undisturbed:
        return [m.blocks(np.ones(len(m.samples_s), np.bool_)) for m in measured]
    keep = undisturbed_rounds(measured, nearest_s)
    found = [m.blocks(kept) for m, kept in zip(measured, keep, strict=True)]
    kept = [[block for block in process if len(block[0]) >= FEWEST_ROUNDS] for process in found]
    return [process for process in kept if process]


def counted(
    measured: Sequence[Measurement], nearest_s: float | None = None, fewest: int = 1
) -> tuple[list[Process], bool]:
    """Samples that count, and whether hardly any were undisturbed, so that all of them do.

    Args:
        measured: one measurement a process.
        nearest_s: as in `undisturbed_rounds`.
        fewest: processes with undisturbed rounds that are needed.
    """
    quiet = by_process(measured, True, nearest_s)
    is_disturbed = len(quiet) < fewest or undisturbed_share(measured, nearest_s) < QUIET_SHARE
    return (by_process(measured, False) if is_disturbed else quiet), is_disturbed


def undisturbed_share(measured: Sequence[Measurement], nearest_s: float | None = None) -> float:
    """Part of all rounds that is undisturbed."""
    return float(np.mean(np.concatenate(undisturbed_rounds(measured, nearest_s))))


def undisturbed_rounds(measured: Sequence[Measurement], nearest_s: float | None = None) -> list[NDArray[np.bool_]]:
    """Rounds with the cores as near to each other as they can be and nothing else on them, [rounds] a process.

    Turns cancel what slows both models by one factor. Cores that a hypervisor has moved apart, or shares with another
    guest, cost the faster model the larger share of its time; a core that something else had costs whoever's turn it
    was. Only these causes decide, so that no round is left out for its ratio.

    Args:
        measured: one measurement a process.
        nearest_s: the shortest distance of the cores known; these may know a shorter one.
    """
    distances, waited = [_floats(m.distance_s) for m in measured], [_floats(m.waited_share) for m in measured]
    known = [float(s) for process in distances for s in process if not np.isnan(s)]
    limit_s = NEAR * min([*known, nearest_s or np.inf], default=np.inf)
    most = _most(waited)
    return [~(far > limit_s) & ~(wait > most) for far, wait in zip(distances, waited, strict=True)]


def _most(waited_share: Sequence[NDArray[np.float64]]) -> float:
    """The share that threads may wait; a process that shared its cores all along does not say how little it can be."""
    least = [np.nanmin(shares) for shares in waited_share if not np.isnan(shares).all()]
    return most_waiting(float(np.quantile(least, USUAL))) if least else np.inf


def _floats(facts: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in facts], np.float64)


def speedup_interval(
    processes: Sequence[Process], *, confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """Speedup of a model over its reference with a bootstrap interval by process block.

    The value is the geometric mean over processes, and in each over compilations, of the ratio of medians.

    Args:
        processes: samples of the model and of the reference, the dense network, in the same rounds.

    Raises:
        ValueError: fewer than two processes, or one without samples.
    """
    return _interval([log_speedup(process) for process in processes], confidence, resamples, seed)


def latency_interval(
    processes: Sequence[NDArray[np.float64]], *, confidence: float = 0.95, resamples: int = 4000, seed: int = 0
) -> Interval:
    """Latency in seconds, the geometric mean over processes of the median, with such an interval.

    Args:
        processes: samples of one model, an array a process.

    Raises:
        ValueError: fewer than two processes.
    """
    return _interval([float(np.log(np.median(samples_s))) for samples_s in processes], confidence, resamples, seed)


def _interval(logs: Sequence[float], confidence: float, resamples: int, seed: int) -> Interval:
    """Of the geometric mean of processes, from the logarithm that each measured.

    Each resample draws processes. What their rounds scatter is part of how processes differ: drawn too it would count
    twice (Davison & Hinkley 1997, 3.8). A handful of processes shows too little of its own spread: the interval is
    widened by sqrt(n / (n - 1)), and as Student's t is wider than a normal distribution (Hesterberg 2015, 4.4).
    """
    count = len(logs)
    if count < 2:
        raise ValueError(f"an interval needs at least two processes, got {count}")
    centre = float(np.mean(logs))
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.asarray(logs)[drawn].mean(axis=1), [tail, 1 - tail])
    widen = np.sqrt(count / (count - 1)) * student_t(1 - tail, count - 1) / NormalDist().inv_cdf(1 - tail)
    return Interval(
        float(np.exp(centre)),
        float(np.exp(centre + (low - centre) * widen)),
        float(np.exp(centre + (high - centre) * widen)),
        confidence,
    )


def student_t(probability: float, freedom: int) -> float:
    """Quantile of Student's t distribution: with x = sqrt(freedom) tan(angle) its density is a power of a cosine."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    until = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability, until / until[-1], angles)))


def log_speedup(process: Process) -> float:
    """Logarithm of the geometric mean over compilations of the reference's median over the model's.

    Raises:
        ValueError: there is no compilation, or one without samples.
    """
    if not process or any(not len(samples_s) for samples_s, _ in process):
        raise ValueError("every process needs samples of both models")
    return float(np.mean([np.log(np.median(reference_s) / np.median(samples_s)) for samples_s, reference_s in process]))

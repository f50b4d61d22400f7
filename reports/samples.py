"""Statistics of raw latencies, computed when they are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a set of latencies looks like, in seconds; ``spread`` is the interquartile range over the median."""

    n: int
    p50_s: float
    p90_s: float
    p99_s: float
    max_s: float
    spread: float


LARGEST = 1e15
"""A ratio beyond it has a denominator that nobody measured."""


def positive(samples_s: Sequence[float | None]) -> NDArray[np.float64]:
    """The samples that can be latencies, [n] seconds."""
    return np.array([s for s in samples_s if s is not None and s > 0], dtype=np.float64)


def distribution(samples_s: NDArray[np.float64]) -> Distribution | None:
    """Statistics of ``samples_s`` [n], None if there are none."""
    if not samples_s.size:
        return None
    p25, p50, p75, p90, p99 = np.quantile(samples_s, (0.25, 0.5, 0.75, 0.9, 0.99)).tolist()
    return Distribution(samples_s.size, p50, p90, p99, float(samples_s.max()), (p75 - p25) / p50)


def cumulative(
    samples_s: NDArray[np.float64], share: float = 0.99, steps: int = 100
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The empirical distribution up to ``share`` of ``samples_s`` [n]: milliseconds and percent of the runs below."""
    shares = np.linspace(0.0, share, min(steps, samples_s.size) + 1)
    values_ms = 1000 * np.quantile(samples_s, shares, method="inverted_cdf")
    return _rounded(values_ms), _rounded(100 * shares)


def _rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(f"{value:.6g}") for value in values)


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """``numerator`` / ``denominator``, None where it has no meaning."""
    if numerator is None or denominator is None or denominator <= 0:
        return None
    quotient = numerator / denominator
    return quotient if abs(quotient) <= LARGEST else None


def total(values: Sequence[float | None]) -> float | None:
    """The sum, None if a part of it is unknown or there is nothing to add."""
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def thinned(length: int, keep: int) -> list[int]:
    """At most ``keep`` of the indices below ``length``, evenly spread, first and last among them."""
    if length <= keep:
        return list(range(length))
    return sorted({round(i) for i in np.linspace(0, length - 1, keep).tolist()})

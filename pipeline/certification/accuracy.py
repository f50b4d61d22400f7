"""How much accuracy was lost, and how sure that is: bootstrap intervals over samples that both networks saw."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Resampled = Callable[[NDArray[np.int64]], NDArray[np.float64]]
"""From how often each sample is drawn [draws, n] to the metric of each draw [draws]."""

DRAWS = 2000
DRAWN_TOGETHER = 200
"""Draws whose counts are in memory at a time."""


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation on held-out data found.

    Args:
        metric: what was measured, such as ``top-1 accuracy``.
        value: between 0 and 1, larger is better.
        per_sample: [n] one value a sample; ``value`` is their mean unless ``resampled`` is given.
        others: values of further metrics that are usually given beside it, by name.
        resampled: the metric of samples drawn with repetition, where it is no mean over samples.
    """

    metric: str
    value: float
    per_sample: NDArray[np.float64]
    others: Mapping[str, float] = field(default_factory=dict)
    resampled: Resampled | None = None


def accuracy_record(dense: Score, compressed: Score, *, seed: int = 0, confidence: float = 0.95) -> dict[str, Any]:
    """Both scores of the same samples, and the intervals of their difference and of the compressed network's own.

    Every draw takes as many samples as there are, with repetition, and computes the metric of both networks on it:
    percentiles of the draws are the intervals (Efron, 1979), whatever the metric is. Two networks that are right
    and wrong about the same samples differ by nothing in every draw.
    """
    samples = len(dense.per_sample)
    rng = np.random.default_rng(seed)
    scores, differences = [], []
    for start in range(0, DRAWS, DRAWN_TOGETHER):
        draws = min(DRAWN_TOGETHER, DRAWS - start)
        counts = rng.multinomial(samples, np.full(samples, 1 / samples), size=draws)
        scores.append(_metric(compressed, counts))
        differences.append(scores[-1] - _metric(dense, counts))
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = np.quantile(np.concatenate(differences), ends)
    own_low, own_high = np.quantile(np.concatenate(scores), ends)
    return {
        "metric": dense.metric,
        "dense": dense.value,
        "compressed": compressed.value,
        "compressed_low": float(own_low),
        "compressed_high": float(own_high),
        "difference": compressed.value - dense.value,
        "ci_low": float(low),
        "ci_high": float(high),
        "confidence": confidence,
        "n": samples,
    }


def _metric(score: Score, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The metric [draws] where each sample counts as often as ``counts`` [draws, n] says."""
    if score.resampled is not None:
        return score.resampled(counts)
    return counts @ score.per_sample / counts.sum(axis=1)  # type: ignore[no-any-return]

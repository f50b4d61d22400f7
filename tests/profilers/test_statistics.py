"""Intervals against known answers: does the stated confidence hold?"""

import numpy as np
import pytest

from profilers.statistics import speedup_interval


def processes(
    rng: np.random.Generator, count: int, ratio: float, between: float, within: float, rounds: int = 40
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Samples whose true ratio is known; every process has an offset of its own."""
    baseline, compressed = [], []
    for _ in range(count):
        offset = np.exp(rng.normal(0, between))
        drift = np.exp(rng.normal(0, 0.05, rounds))
        baseline.append(0.03 * drift * np.exp(rng.normal(0, within, rounds)))
        compressed.append(0.03 / ratio * offset * drift * np.exp(rng.normal(0, within, rounds)))
    return baseline, compressed


def test_the_interval_holds_the_value() -> None:
    interval = speedup_interval(*processes(np.random.default_rng(0), 6, 3.0, 0.01, 0.02))
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(3.0, rel=0.03)
    assert interval.half_width < 0.03


@pytest.mark.parametrize("between", [0.0, 0.01])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(between: float) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(200):
        interval = speedup_interval(*processes(rng, 8, 2.0, between, 0.03), resamples=600)
        hits += interval.low <= 2.0 <= interval.high
    assert hits / 200 > 0.88


def test_a_slow_spell_that_hits_both_leaves_the_ratio_alone() -> None:
    rng = np.random.default_rng(3)
    baseline, compressed = processes(rng, 6, 2.0, 0.0, 0.01)
    spell = np.where(np.arange(40) < 15, 3.0, 1.0)
    slowed = speedup_interval([b * spell for b in baseline], [c * spell for c in compressed])
    assert slowed.value == pytest.approx(2.0, rel=0.02)


def test_same_seed_same_interval() -> None:
    samples = processes(np.random.default_rng(1), 4, 2.0, 0.01, 0.02)
    assert speedup_interval(*samples, seed=5) == speedup_interval(*samples, seed=5)


@pytest.mark.parametrize("count", [0, 1])
def test_one_process_has_no_interval(count: int) -> None:
    with pytest.raises(ValueError, match="two processes"):
        speedup_interval(*processes(np.random.default_rng(1), count, 2.0, 0.01, 0.02))


def test_processes_without_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="samples"):
        speedup_interval([[], []], [[], []])

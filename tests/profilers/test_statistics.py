"""Intervals against known answers: does the stated confidence hold?"""

import numpy as np
import pytest

from profilers.statistics import speedup_interval, undisturbed_rounds


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


def spell(rng: np.random.Generator, rounds: int, lost_s: float) -> tuple[np.ndarray, np.ndarray]:
    """A process in whose second half both models lose the same time a run; the true ratio is 3.4."""
    lost = np.where(np.arange(rounds) >= rounds // 2, lost_s, 0.0)
    noise = np.exp(rng.normal(0, 0.005, (2, rounds)))
    return (0.037 + lost) * noise[0], (0.037 / 3.4 + lost) * noise[1]


def test_rounds_in_a_slow_spell_are_found_by_the_baseline_alone() -> None:
    baseline, _ = spell(np.random.default_rng(0), 60, 0.002)
    (keep,) = undisturbed_rounds([baseline])
    assert keep[:25].all()
    assert not keep[35:].any()


def test_without_the_spell_the_ratio_is_the_true_one() -> None:
    rng = np.random.default_rng(1)
    processes = [spell(rng, 60, 0.002) for _ in range(4)]
    masks = undisturbed_rounds([b for b, _ in processes])
    quiet = speedup_interval(
        [b[m] for (b, _), m in zip(processes, masks, strict=True)],
        [c[m] for (_, c), m in zip(processes, masks, strict=True)],
    )
    everything = speedup_interval([b for b, _ in processes], [c for _, c in processes])
    assert quiet.low <= 3.4 <= quiet.high
    assert everything.value < 3.3


def test_a_quiet_machine_keeps_every_round() -> None:
    rng = np.random.default_rng(2)
    masks = undisturbed_rounds([0.02 * np.exp(rng.normal(0, 0.005, 40)) for _ in range(5)])
    assert np.concatenate(masks).all()


def test_a_known_quiet_latency_shows_that_everything_was_disturbed() -> None:
    samples = [np.full(30, 0.039)]
    assert undisturbed_rounds(samples)[0].all()
    assert not undisturbed_rounds(samples, quiet_s=0.037)[0].any()


def test_a_handful_of_rounds_is_judged_as_one() -> None:
    (few, many) = undisturbed_rounds([np.full(5, 0.05), np.full(30, 0.04)])
    assert not few.any()
    assert many.all()

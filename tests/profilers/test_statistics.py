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


NEAR_S, FAR_S = 0.2e-6, 0.6e-6


def spell(rng: np.random.Generator, rounds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A process in whose second half the cores are apart and both models lose time; the true ratio is 4.4."""
    apart = np.arange(rounds) >= rounds // 2
    noise = np.exp(rng.normal(0, 0.005, (3, rounds)))
    lost_s = 0.0013 * apart
    return (0.020 + lost_s) * noise[0], (0.020 / 4.4 + lost_s) * noise[1], np.where(apart, FAR_S, NEAR_S) * noise[2]


def test_leaving_out_rounds_with_the_cores_apart_gives_the_true_ratio() -> None:
    rng = np.random.default_rng(1)
    processes = [spell(rng, 60) for _ in range(6)]
    kept = undisturbed_rounds([distance.tolist() for _, _, distance in processes])
    quiet = speedup_interval(
        [base[keep] for (base, _, _), keep in zip(processes, kept, strict=True)],
        [comp[keep] for (_, comp, _), keep in zip(processes, kept, strict=True)],
    )
    everything = speedup_interval([base for base, _, _ in processes], [comp for _, comp, _ in processes])
    assert quiet.low <= 4.4 <= quiet.high
    assert everything.value < 4.2


def test_cores_that_stay_where_they_are_keep_every_round() -> None:
    assert np.concatenate(undisturbed_rounds([[FAR_S] * 40, [FAR_S * 1.2] * 40])).all()


def test_a_known_shorter_distance_shows_that_the_cores_were_apart_all_the_time() -> None:
    assert not undisturbed_rounds([[FAR_S] * 40], nearest_s=NEAR_S)[0].any()


def test_a_single_core_has_no_distance_and_keeps_every_round() -> None:
    assert np.concatenate(undisturbed_rounds([[None] * 40, [None] * 40])).all()

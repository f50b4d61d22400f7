"""Intervals against known answers: does the stated confidence hold?"""

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from profilers.measure import Measurement
from profilers.statistics import (
    Process,
    by_process,
    counted,
    latency_interval,
    speedup_interval,
    student_t,
    undisturbed_rounds,
)


def processes(
    rng: np.random.Generator, count: int, ratio: float, between: float, within: float, rounds: int = 40
) -> list[Process]:
    """Samples whose true ratio is known; every process has an offset of its own, and so has every compilation."""
    found = []
    for _ in range(count):
        process = []
        for _ in range(4):
            offset = np.exp(rng.normal(0, between))
            drift = np.exp(rng.normal(0, 0.05, rounds // 4))
            dense_s = 0.03 * drift * np.exp(rng.normal(0, within, rounds // 4))
            process.append((0.03 / ratio * offset * drift * np.exp(rng.normal(0, within, rounds // 4)), dense_s))
        luck = np.exp(rng.normal(0, between))
        found.append([(samples_s * luck, dense_s) for samples_s, dense_s in process])
    return found


def test_the_interval_holds_the_value() -> None:
    interval = speedup_interval(processes(np.random.default_rng(0), 6, 3.0, 0.01, 0.02))
    assert interval.low <= interval.value <= interval.high
    assert interval.value == pytest.approx(3.0, rel=0.03)
    assert interval.half_width < 0.03


@pytest.mark.parametrize("count", [4, 12])
@pytest.mark.parametrize("between", [0.0, 0.01])
def test_the_interval_covers_the_truth_as_often_as_it_says(between: float, count: int) -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        interval = speedup_interval(processes(rng, count, 2.0, between, 0.03), resamples=600)
        hits += interval.low <= 2.0 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize("freedom", [1, 2, 3, 11, 39])
def test_students_t_is_scipys(freedom: int) -> None:
    for probability in (0.9, 0.975, 0.995):
        assert student_t(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-5)


def test_the_interval_of_a_latency_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        drawn = [0.02 * np.exp(rng.normal(0, 0.02) + rng.normal(0, 0.03, 18)) for _ in range(12)]
        interval = latency_interval(drawn, resamples=400)
        hits += interval.low <= 0.02 <= interval.high
    assert 0.91 <= hits / 200 <= 0.985


def test_a_latency_of_few_processes_that_hardly_agree_stays_positive() -> None:
    interval = latency_interval([np.full(5, 0.001), np.full(5, 0.009)])
    assert 0 < interval.low < interval.value < interval.high


def test_a_slow_spell_that_hits_both_leaves_the_ratio_alone() -> None:
    rng = np.random.default_rng(3)
    spell = np.where(np.arange(10) < 4, 3.0, 1.0)
    slowed = speedup_interval([[(c * spell, d * spell) for c, d in p] for p in processes(rng, 6, 2.0, 0.0, 0.01)])
    assert slowed.value == pytest.approx(2.0, rel=0.02)


def test_same_seed_same_interval() -> None:
    samples = processes(np.random.default_rng(1), 4, 2.0, 0.01, 0.02)
    assert speedup_interval(samples, seed=5) == speedup_interval(samples, seed=5)


@pytest.mark.parametrize("count", [0, 1])
def test_one_process_has_no_interval(count: int) -> None:
    with pytest.raises(ValueError, match="two processes"):
        speedup_interval(processes(np.random.default_rng(1), count, 2.0, 0.01, 0.02))


def test_processes_without_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="samples"):
        speedup_interval([[(np.array([]), np.array([]))]] * 2)


NEAR_S, FAR_S = 0.2e-6, 0.6e-6


def measurement(
    samples_s: np.ndarray,
    reference_s: np.ndarray,
    distance_s: ArrayLike,
    waited_share: ArrayLike = 0.003,
    size: int = 60,
) -> Measurement:
    """One process, compiled anew every ``size`` rounds."""
    count = len(samples_s)
    facts = [tuple(np.broadcast_to(np.asarray(values), count).tolist()) for values in (distance_s, waited_share)]
    numbers = tuple((np.arange(count) // size).tolist())
    return Measurement("model", tuple(samples_s.tolist()), tuple(reference_s.tolist()), numbers, *facts)


def spell(rng: np.random.Generator, rounds: int) -> Measurement:
    """A process in whose second half the cores are apart and both models lose time; the true ratio is 4.4."""
    apart = np.arange(rounds) >= rounds // 2
    noise = np.exp(rng.normal(0, 0.005, (3, rounds)))
    lost_s = 0.0013 * apart
    distance_s = np.where(apart, FAR_S, NEAR_S) * noise[2]
    return measurement((0.020 / 4.4 + lost_s) * noise[1], (0.020 + lost_s) * noise[0], distance_s)


def test_leaving_out_rounds_with_the_cores_apart_gives_the_true_ratio() -> None:
    rng = np.random.default_rng(1)
    measured = [spell(rng, 60) for _ in range(6)]
    quiet, everything = (speedup_interval(by_process(measured, flag)) for flag in (True, False))
    assert quiet.low <= 4.4 <= quiet.high
    assert everything.value < 4.2


def test_every_compilation_stands_alone_and_those_with_hardly_an_undisturbed_round_are_left_out() -> None:
    waited = np.where(np.arange(40) < 18, 0.1, 0.001)  # of four compilations the first has none, the second two
    process = measurement(np.arange(40.0), np.arange(40.0) + 1, NEAR_S, waited, size=10)
    every = by_process([process, process], False)
    assert [[len(samples_s) for samples_s, _ in blocks] for blocks in every] == [[10] * 4] * 2
    (quiet,) = by_process([process], True)
    assert [samples_s.tolist() for samples_s, _ in quiet] == [[*range(20, 30)], [*range(30, 40)]]


def kept(distance_s: ArrayLike, waited_share: ArrayLike = 0.0, nearest_s: float | None = None) -> list[bool]:
    process = measurement(np.ones(4), np.ones(4), distance_s, waited_share)
    (keep,) = undisturbed_rounds([process], nearest_s)
    return keep.tolist()


def test_cores_that_stay_where_they_are_keep_every_round() -> None:
    assert kept([FAR_S, FAR_S, FAR_S * 1.2, FAR_S * 1.2]) == [True] * 4


def test_a_known_shorter_distance_shows_that_the_cores_were_apart_all_the_time() -> None:
    assert kept(FAR_S, nearest_s=NEAR_S) == [False] * 4


def test_what_cannot_be_measured_keeps_every_round() -> None:
    assert kept(np.array([None] * 4), np.array([None] * 4)) == [True] * 4


def test_rounds_in_which_something_else_had_a_core_are_left_out() -> None:
    assert kept(NEAR_S, [0.002, 0.2, 0.009, 0.02]) == [True, False, True, False]


def test_threads_that_wait_for_each_other_all_the_time_are_no_disturbance() -> None:
    assert kept(NEAR_S, [0.9, 0.95, 1.1, 0.92]) == [True] * 4


def test_a_process_that_shared_its_cores_all_along_is_left_out() -> None:
    quiet = [measurement(np.ones(4), np.ones(4), NEAR_S, 0.003) for _ in range(3)]
    shared = [measurement(np.ones(4), np.ones(4), NEAR_S, 0.8) for _ in range(5)]
    assert len(by_process([*quiet, *shared], True)) == 3
    spinning = [measurement(np.ones(4), np.ones(4), NEAR_S, share) for share in (0.002, 0.5, 0.8, 0.9, 0.95)]
    assert len(by_process(spinning, True)) == 5  # one lucky process says nothing about the others


def test_a_few_undisturbed_rounds_do_not_speak_for_a_machine_that_is_disturbed_most_of_the_time() -> None:
    def process(near: int) -> Measurement:
        return measurement(np.ones(40), np.full(40, 2.0), np.where(np.arange(40) < near, NEAR_S, FAR_S))

    every, is_disturbed = counted([process(4)] * 4)
    assert ([len(samples_s) for ((samples_s, _),) in every], is_disturbed) == ([40] * 4, True)
    quiet, is_disturbed = counted([process(20)] * 4)
    assert ([len(samples_s) for ((samples_s, _),) in quiet], is_disturbed) == ([20] * 4, False)
    assert counted([process(20), process(0)], fewest=2)[1]

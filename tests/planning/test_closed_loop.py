"""The loop against a network whose latency is known, and against a table that is wrong about it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pipeline.planning.carrying import believed
from pipeline.planning.closed_loop import ACCEPTED, REFITS, LoopResult, Measure, Proposal, run_loop
from pipeline.search.budget_dp import solve_budget
from pipeline.search.error_models import quadratic
from profilers.latency_table import Choice, LatencyTable, PlanMeasurement
from profilers.profile import anchor_plans, neighbours, random_plan
from profilers.table_fit import fit_latency_table
from targets.errors import SpeedupError
from tests.profilers.simulated import LEVELS, relative, units

DENSE_S = 0.04


def first_table(plans: int, bias: float = 1.0) -> LatencyTable:
    """A table fitted to plans whose latencies were off by ``bias`` where nothing is dense."""
    rng = np.random.default_rng(0)
    choices = anchor_plans(units(), LEVELS, 8) + [random_plan(units(), LEVELS, rng) for _ in range(plans)]
    measured = [PlanMeasurement(c, relative(c) * (bias if any(c) else 1.0)) for c in choices]
    return fit_latency_table(units(), LEVELS, DENSE_S, measured, host_id="h", target={})


def allocate(table: LatencyTable, budget_s: float, number: int) -> Proposal:
    rows = [row if unit.prunable else row[:1] for row, unit in zip(table.costs(), table.units, strict=True)]
    choice = solve_budget(quadratic(rows), rows, budget_s - table.fixed_s).choice
    return Proposal(tuple(int(level) for level in choice), loss=None)


def measure(_: LatencyTable, choice: Choice) -> PlanMeasurement:
    return PlanMeasurement(choice, relative(choice), 6.0, "solved")


def nearby(table: LatencyTable, choice: Choice) -> list[PlanMeasurement]:
    rng = np.random.default_rng(hash(choice) % 2**32)
    return [PlanMeasurement(plan, relative(plan), 2.0, "neighbour") for plan in neighbours(table, choice, 4, rng)]


def loop(table: LatencyTable, speedup: float) -> LoopResult:
    return run_loop(table, speedup, allocate, measure, nearby)


@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0, 4.0])
def test_the_measured_speedup_is_the_requested_one_or_little_more(speedup: float) -> None:
    found = loop(first_table(plans=40), speedup)
    assert 0 <= 1 / relative(found.choice) / speedup - 1 <= 0.05


@pytest.mark.parametrize("bias", [0.8, 0.9, 1.2, 1.4])
def test_a_table_that_is_far_off_is_corrected(bias: float) -> None:
    """The plan sold as 3x that measures 2.2x is what happens without the loop."""
    found = loop(first_table(plans=40, bias=bias), 3.0)
    assert 0 <= 1 / relative(found.choice) / 3.0 - 1 <= 0.05
    assert found.measured_speedup == pytest.approx(1 / relative(found.choice))


@pytest.mark.parametrize("border", [0.005, 0.01])
def test_borders_that_the_program_does_not_know_are_made_up_for(border: float) -> None:
    """A table that is right: what its program charges wrongly is the loop's to find out."""
    table = replace(first_table(plans=40), border_s=border * DENSE_S)
    found = run_loop(table, 1.1, allocate, lambda now, choice: believed(table, choice), lambda *_: [])
    assert ACCEPTED[0] <= found.measured_speedup / 1.1 - 1 <= ACCEPTED[1]


def test_prediction_and_measurement_meet() -> None:
    found = loop(first_table(plans=40, bias=0.8), 3.0)
    last = found.rounds[-1]
    assert ACCEPTED[0] <= last.measured_speedup / 3.0 - 1 <= ACCEPTED[1]
    assert last.predicted_speedup == pytest.approx(last.measured_speedup, rel=0.05)


def test_the_impossible_is_refused_with_what_is_possible() -> None:
    with pytest.raises(SpeedupError, match=r"unreachable here.*fixed") as error:
        loop(first_table(plans=40), 50.0)
    assert error.value.exit_code == 3
    assert 1 < error.value.facts["fastest_measured"] < 50


def test_the_same_measurements_give_the_same_plan() -> None:
    one, two = (loop(first_table(plans=40, bias=0.9), 3.0) for _ in range(2))
    assert one.choice == two.choice
    assert one.rounds == two.rounds
    assert one.table.seconds.tolist() == two.table.seconds.tolist()


def test_rounds_are_told_as_they_end() -> None:
    seen: list[int] = []
    run_loop(first_table(plans=40), 2.0, allocate, measure, nearby, on_round=lambda turn: seen.append(turn.number))
    assert seen == list(range(len(seen)))
    assert seen


def test_plans_near_the_last_one_are_not_measured() -> None:
    asked: list[Choice] = []

    def count(table: LatencyTable, choice: Choice) -> list[PlanMeasurement]:
        asked.append(choice)
        return nearby(table, choice)

    found = run_loop(first_table(plans=40, bias=0.8), 3.0, allocate, measure, count)
    assert len(found.rounds) > 1
    assert asked == [turn.choice for turn in found.rounds[:-1]][:REFITS]


def test_near_the_fastest_plan_there_is_no_room_for_a_margin_and_none_is_asked_for() -> None:
    table = first_table(plans=40)
    fastest = table.speedup(tuple(int(level) for level in table.costs().argmin(axis=1)))
    found = loop(table, 0.99 * fastest)  # less than the margin below the fastest
    assert found.measured_speedup > 0.95 * fastest


def test_what_an_unreachable_request_is_told_to_ask_for_is_reachable() -> None:
    table = first_table(plans=40)
    with pytest.raises(SpeedupError) as error:
        loop(table, 60.0)
    advised = float(re.findall(r"Lower --speedup to at most ([\d.]+),", str(error.value))[0])
    assert 1 / relative(loop(table, advised).choice) >= advised


def test_where_measurements_scatter_the_loop_ends_soon_and_aims_higher() -> None:
    rng = np.random.default_rng(3)

    def noisy(_: LatencyTable, choice: Choice) -> PlanMeasurement:
        return PlanMeasurement(choice, relative(choice) * rng.lognormal(0, 0.03), 1.0, "solved", noise=0.03)

    def speedups(measure: Measure) -> tuple[list[float], list[int]]:
        found = [run_loop(first_table(plans=40), 3.0, allocate, measure, nearby) for _ in range(12)]
        return [1 / relative(one.choice) for one in found], [len(one.rounds) for one in found]

    (aware, rounds), (unaware, more) = speedups(noisy), speedups(lambda *a: replace(noisy(*a), noise=0.0))
    assert np.mean(rounds) < np.mean(more)
    assert np.mean(aware) > np.mean(unaware)
    assert np.mean(aware) < 3.0 * 1.08

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.search.budget_dp import InfeasibleBudget, Solution, solve_budget
from targets.errors import SpeedupError
from tests.search.timings import Rows, Timings, generated_timings, milp_optimum, quadratic, read_timings

FIRST_AND_LAST = {
    "rn18": ("conv1", "fc"),
    "rn50": ("conv1", "fc"),
    "yolov5s": ("model.0.conv", "model.24.m.0"),
}


def sums(errors: Rows, costs: Rows, choice) -> tuple[float, float]:
    return (
        sum(float(costs[u][level]) for u, level in enumerate(choice)),
        sum(float(errors[u][level]) for u, level in enumerate(choice)),
    )


def brute_force(errors: Rows, costs: Rows, budget: float) -> float | None:
    plans = itertools.product(*(range(len(row)) for row in costs))
    totals = [sums(errors, costs, plan) for plan in plans]
    return min((error for cost, error in totals if cost <= budget and np.isfinite([cost, error]).all()), default=None)


def check(solution: Solution, errors: Rows, costs: Rows, budget: float) -> None:
    """A solution says what its choice costs, and it is never over the budget."""
    cost, error = sums(errors, costs, solution.choice)
    assert solution.cost == cost <= budget
    assert solution.error == error


@pytest.fixture
def timings():
    folder = os.environ.get("SPDY_DATA")
    if not folder:
        pytest.skip("SPDY_DATA is not set: the SPDY authors' timing files are not here")

    def read(name: str) -> Timings:
        return read_timings(Path(folder) / "spdy_timings" / f"{name}_unstr.txt")

    return read


@st.composite
def small_problems(draw):
    """Up to five units with up to five levels; few distinct numbers, so that ties, zeros and exact fits are common."""
    number = st.one_of(
        st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 1.0, 1e-9, 5e-324]),
        st.floats(0, 1e6, allow_nan=False),
    )
    unbounded = st.one_of(number, st.just(np.inf))
    errors, costs = [], []
    for _ in range(draw(st.integers(1, 5))):
        levels = draw(st.integers(1, 5))
        errors.append(np.array([draw(number), *(draw(unbounded) for _ in range(levels - 1))]))
        costs.append(np.array([draw(number), *(draw(unbounded) for _ in range(levels - 1))]))
    plan = [draw(st.integers(0, len(row) - 1)) for row in costs]
    exact_fit = sums(errors, costs, plan)[0]
    return errors, costs, draw(st.one_of(st.just(exact_fit), number))


@given(small_problems())
@settings(max_examples=1000)
def test_equals_brute_force(problem):
    errors, costs, budget = problem
    best = brute_force(errors, costs, budget)
    if best is None:
        with pytest.raises(InfeasibleBudget) as raised:
            solve_budget(errors, costs, budget)
        assert raised.value.budget == budget
        assert raised.value.cheapest > budget
        assert brute_force(errors, costs, raised.value.cheapest) is not None
    else:
        solution = solve_budget(errors, costs, budget)
        check(solution, errors, costs, budget)
        assert solution.error == pytest.approx(best, rel=1e-12, abs=0)


@given(small_problems(), st.integers(1, 4))
@settings(max_examples=200)
def test_few_buckets_never_break_the_budget(problem, buckets):
    errors, costs, budget = problem
    best = brute_force(errors, costs, budget)
    if best is not None:
        solution = solve_budget(errors, costs, budget, buckets)
        check(solution, errors, costs, budget)
        assert solution.error >= best * (1 - 1e-12)


@pytest.mark.parametrize(
    ("name", "speedup", "optimum"),
    [
        ("rn18", 2.0, 1.8614),
        ("rn50", 2.0, 3.2754),
        ("rn50", 3.0, 11.8120),
        ("yolov5s", 1.5, 1.1943),
        ("yolov5s", 1.75, 8.4611),
    ],
)
def test_known_optima_of_the_authors_files(timings, name, speedup, optimum):
    table = timings(name)
    costs = table.costs(FIRST_AND_LAST[name])
    errors, budget = quadratic(costs), table.budget(speedup)
    solution = solve_budget(errors, costs, budget)
    check(solution, errors, costs, budget)
    assert solution.error == pytest.approx(optimum, abs=5e-5)


@pytest.mark.parametrize(("name", "speedups"), [("rn18", (1.5, 2.5)), ("rn50", (1.5, 2.5, 4.0)), ("yolov5s", (1.25,))])
def test_optimal_on_the_authors_files(timings, name, speedups):
    table = timings(name)
    costs = table.costs(())
    errors = quadratic(costs)
    for speedup in speedups:
        budget = table.budget(speedup)
        solution = solve_budget(errors, costs, budget)
        check(solution, errors, costs, budget)
        assert solution.error == pytest.approx(milp_optimum(errors, costs, budget), rel=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_optimal_on_a_hundred_generated_layers(seed):
    rng = np.random.default_rng(seed)
    costs = generated_timings(100, 42, rng)
    errors = [row * rng.uniform() for row in quadratic(costs)]
    fastest, dense = sum(row.min() for row in costs), sum(row[0] for row in costs)
    budget = fastest + rng.uniform(0.05, 0.5) * (dense - fastest)
    solution = solve_budget(errors, costs, budget)
    check(solution, errors, costs, budget)
    assert solution.error == pytest.approx(milp_optimum(errors, costs, budget), rel=1e-6)


@pytest.mark.parametrize(("buckets", "gap"), [(100, 0.001), (10, 0.01), (1, 0.03)])
def test_thinned_frontiers_stay_near_the_optimum(buckets, gap):
    rng = np.random.default_rng(7)
    costs = generated_timings(60, 42, rng)
    errors = [row * rng.uniform() for row in quadratic(costs)]
    budget = 0.4 * sum(row[0] for row in costs)
    thinned = solve_budget(errors, costs, budget, buckets)
    check(thinned, errors, costs, budget)
    optimum = solve_budget(errors, costs, budget).error
    assert optimum <= thinned.error <= optimum * (1 + gap)


def test_near_the_optimum_where_every_plan_is_as_good_per_second():
    """Errors that fall in a line with cost: the bounds drop nothing, and the frontiers fill every bucket."""
    rng = np.random.default_rng(3)
    costs = [np.sort(rng.uniform(0.1, 1, 12))[::-1] for _ in range(12)]
    errors = [row[0] - row for row in costs]
    budget = 5.0
    solution = solve_budget(errors, costs, budget, buckets=2000)
    check(solution, errors, costs, budget)
    assert solution.error == pytest.approx(sum(row[0] for row in costs) - budget, rel=1e-3)


def test_a_larger_budget_is_never_worse():
    rng = np.random.default_rng(11)
    costs = generated_timings(30, 20, rng)
    errors = [row * rng.uniform() for row in quadratic(costs)]
    budgets = np.linspace(sum(row.min() for row in costs) * (1 + 1e-9), sum(row[0] for row in costs), 60)
    found = [solve_budget(errors, costs, budget).error for budget in budgets]
    assert all(after <= before for before, after in itertools.pairwise(found))
    assert found[-1] == 0


@pytest.mark.parametrize("factor", [1e-6, 0.37, 1e9])
def test_scaling_errors_or_costs_changes_nothing(factor):
    rng = np.random.default_rng(5)
    costs = generated_timings(30, 42, rng)
    errors = [row * rng.uniform() for row in quadratic(costs)]
    budget = 0.45 * sum(row[0] for row in costs)
    choice = solve_budget(errors, costs, budget).choice.tolist()
    assert solve_budget([row * factor for row in errors], costs, budget).choice.tolist() == choice
    assert solve_budget(errors, [row * factor for row in costs], budget * factor).choice.tolist() == choice


def test_a_level_that_buys_no_time_is_never_chosen():
    costs = [np.array([1.0, 1.0, 1.3, 0.2]), np.array([2.0, 1.0])]
    errors = [np.array([0.0, 0.0, 0.1, 0.9]), np.array([0.0, 0.5])]
    assert solve_budget(errors, costs, 3.0).choice.tolist() == [0, 0]
    assert solve_budget(errors, costs, 2.5).choice.tolist() == [0, 1]


def test_an_infinite_error_forbids_a_level():
    errors, costs = [[0.0, np.inf, 1.0]], [[3.0, 1.0, 2.0]]
    assert solve_budget(errors, costs, 2.5).choice.tolist() == [2]
    with pytest.raises(InfeasibleBudget) as raised:
        solve_budget(errors, costs, 1.5)
    assert raised.value.cheapest == 2.0


def test_infeasible_budget_says_what_is_possible():
    with pytest.raises(InfeasibleBudget, match=r"1\.5 ms.*--speedup") as raised:
        solve_budget([[0, 1], [0, 1]], [[0.003, 0.001], [0.002, 0.0005]], 0.001)
    error = raised.value
    assert isinstance(error, SpeedupError)
    assert error.exit_code == 3
    assert (error.cheapest, error.budget) == (0.0015, 0.001)
    assert solve_budget([[0, 1], [0, 1]], [[0.003, 0.001], [0.002, 0.0005]], error.cheapest).cost == error.cheapest


@pytest.mark.parametrize("budget", [-1.0, -np.inf])
def test_a_negative_budget_is_infeasible_even_for_nothing(budget):
    with pytest.raises(InfeasibleBudget):
        solve_budget([], [], budget)
    assert solve_budget([], [], 0.0).choice.tolist() == []


def test_an_unlimited_budget_buys_the_least_error():
    assert solve_budget([[0.5, 0.0], [0.0, 1.0]], [[1, 9], [2, 1]], np.inf).choice.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("errors", "costs", "budget", "buckets", "message"),
    [
        ([[0.0, np.nan]], [[1.0, 0.5]], 1.0, 10, "unit 0.*NaN"),
        ([[0.0, 1.0]], [[1.0, np.nan]], 1.0, 10, "unit 0.*NaN"),
        ([[0.0], [0.0]], [[1.0], [-0.5]], 1.0, 10, "unit 1.*>= 0"),
        ([[-np.inf]], [[1.0]], 1.0, 10, "minus infinity"),
        ([[0.0, 1.0]], [[1.0]], 1.0, 10, "unit 0.*one length"),
        ([[0.0]], [[1.0], [1.0]], 1.0, 10, "1 units, costs for 2"),
        ([[[0.0]]], [[[1.0]]], 1.0, 10, "1-D"),
        ([[]], [[]], 1.0, 10, "unit 0: no level"),
        ([[np.inf]], [[1.0]], 1.0, 10, "unit 0: no level"),
        ([[0.0]], [[1.0]], np.nan, 10, "budget"),
        ([[0.0]], [[1.0]], 1.0, 0, "buckets"),
    ],
)
def test_bad_input(errors, costs, budget, buckets, message):
    with pytest.raises(ValueError, match=message):
        solve_budget(errors, costs, budget, buckets)

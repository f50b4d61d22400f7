import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.search.allocators import ALLOCATORS, Problem
from pipeline.search.budget_dp import InfeasibleBudget
from pipeline.search.spdy import Knobs
from targets.levels import Level, sparsity_grid
from tests.search.timings import generated_timings

BASELINES = ("dp", "uniform", "global-magnitude")


def problem(seed: int = 0, units: int = 14, share: float = 0.5, levels: tuple[Level, ...] | None = None) -> Problem:
    """Units with normal weights of different spreads; the first and last stay dense.

    The budget lies at a ``share`` of the way from the last level everywhere to dense everywhere.
    """
    rng = np.random.default_rng(seed)
    levels = levels or sparsity_grid(count=15)
    costs = np.array(generated_timings(units, len(levels), rng))
    amounts = np.array([level.amount for level in levels])
    errors = amounts ** rng.uniform(1.5, 4, (units, 1)) * 10 ** rng.uniform(-2, 0, (units, 1))
    weights = {f"unit{i}": np.sort(np.abs(rng.normal(0, rng.uniform(0.1, 1), 2000))) for i in range(units)}
    prunable = np.ones(units, dtype=bool)
    prunable[[0, -1]] = False

    dense_s = costs[:, 0].sum()
    last_level_s = np.where(prunable, costs[:, -1], costs[:, 0]).sum()

    def evaluate(plans: Sequence[tuple[int, ...]], limit: float, share: float = 1.0) -> list[float]:
        return [float(errors[np.arange(units), plan].sum()) for plan in plans]

    return Problem(
        unit_names=tuple(weights),
        levels=levels,
        errors=errors,
        costs=costs,
        prunable=prunable,
        budget_s=(1 - share) * last_level_s + share * dense_s,
        magnitudes=weights.__getitem__,
        evaluate=evaluate,
        rng=np.random.default_rng(seed),
        knobs=Knobs(starts=10, patience=10),
    )


def test_spdy_is_never_worse_than_the_least_sum_of_measured_errors() -> None:
    """Here that sum is the loss itself, so that nothing is better; the quadratic error model cannot express it."""
    for share in (0.2, 0.5, 0.8):
        task = dataclasses.replace(problem(3, share=share), knobs=Knobs(starts=2, patience=1))
        found, best = ALLOCATORS["spdy"](task), ALLOCATORS["dp"](task).choice.tolist()
        assert found.choice.tolist() == best
        assert found.loss == pytest.approx(total(task.errors, best))
        assert found.trace[-1].incumbent == found.loss
        few = dataclasses.replace(problem(3, share=share), knobs=Knobs(starts=2, patience=1, max_evaluations=2))
        assert len(ALLOCATORS["spdy"](few).trace) <= 2


def total(table, choice) -> float:
    return float(sum(table[u, level] for u, level in enumerate(choice)))


@pytest.mark.parametrize("name", ALLOCATORS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_every_allocator_charges_everything_and_meets_the_budget(name, share):
    task = problem(share=share)
    choice = ALLOCATORS[name](task).choice
    assert total(task.costs, choice) <= task.budget_s
    assert choice[[0, -1]].tolist() == [0, 0]
    assert choice.shape == (14,)


@pytest.mark.parametrize("name", ALLOCATORS)
def test_a_budget_that_dense_meets_leaves_everything_dense(name):
    assert not ALLOCATORS[name](problem(share=1.000001)).choice.any()


@pytest.mark.parametrize("seed", range(10))
def test_no_baseline_beats_the_dp_on_the_dps_own_objective(seed):
    task = problem(seed)
    errors = {name: total(task.errors, ALLOCATORS[name](task).choice) for name in BASELINES}
    assert errors["dp"] <= min(errors.values())
    assert errors["dp"] < max(errors.values())


@pytest.mark.parametrize("start", [None, (0,) * 14], ids=["afresh", "from a former plan"])
@pytest.mark.parametrize("name", ALLOCATORS)
def test_infeasible_budgets_carry_what_can_be_reached(name, start):
    task = dataclasses.replace(problem(share=-1.0), start=start)
    with pytest.raises(InfeasibleBudget) as raised:
        ALLOCATORS[name](task)
    assert raised.value.budget == task.budget_s
    reachable = dataclasses.replace(task, budget_s=raised.value.cheapest)
    choice = ALLOCATORS[name](reachable).choice
    assert total(task.costs, choice) == pytest.approx(raised.value.cheapest)
    assert task.costs[[0, -1], 0].sum() < raised.value.cheapest


def test_uniform_is_the_gentlest_level_that_fits():
    task = problem()
    choice = ALLOCATORS["uniform"](task).choice
    level = choice[1]
    assert set(choice[1:-1].tolist()) == {level}
    for gentler in range(level):
        assert total(task.costs, np.where(task.prunable, gentler, 0)) > task.budget_s


def test_uniform_prefers_the_smaller_error_among_equal_amounts():
    levels = (Level(), Level("unstructured", 0.5), Level("block", 0.5))
    task = Problem(
        ("a", "b"),
        levels,
        np.array([[0, 0.3, 0.2], [0, 0.3, 0.2]]),
        np.array([[2.0, 1.0, 1.0], [2.0, 1.0, 1.0]]),
        np.array([True, True]),
        2.0,
    )
    assert ALLOCATORS["uniform"](task).choice.tolist() == [2, 2]


def test_global_magnitude_is_the_smallest_threshold_that_fits():
    """Against a scan of every weight as the threshold."""
    task = problem(3, units=5, share=0.6)
    amounts = np.array([level.amount for level in task.levels])
    weights = [task.magnitudes(name)[::10] for name in task.unit_names]
    task = dataclasses.replace(task, magnitudes=lambda name: weights[task.unit_names.index(name)])
    for threshold in np.sort(np.concatenate(weights[1:-1])):
        sparsity = [(row <= threshold).mean() for row in weights]
        nearest = np.array([np.abs(amounts - s).argmin() for s in sparsity])
        expected = np.where(task.prunable, nearest, 0)
        if total(task.costs, expected) <= task.budget_s:
            break
    assert ALLOCATORS["global-magnitude"](task).choice.tolist() == expected.tolist()


def test_global_magnitude_prunes_the_unit_with_the_smaller_weights_more():
    task = problem(1)
    choice = ALLOCATORS["global-magnitude"](task).choice[1:-1]
    medians = [np.median(task.magnitudes(name)) for name in task.unit_names[1:-1]]
    assert (np.diff(choice[np.argsort(medians)]) <= 0).all()


def test_global_magnitude_knows_only_dense_and_unstructured_levels():
    levels = (Level(), Level(precision="int8"), Level("unstructured", 0.6), Level("block", 0.5))
    choice = ALLOCATORS["global-magnitude"](problem(levels=levels, share=0.9)).choice
    assert set(choice.tolist()) <= {0, 2}


@pytest.mark.parametrize("name", ALLOCATORS)
def test_levels_that_a_unit_does_not_have_are_not_chosen(name):
    task = problem(2, share=0.6)
    wanted = ALLOCATORS[name](task).choice
    errors = task.errors.copy()
    errors[1, wanted[1]] = np.inf
    choice = ALLOCATORS[name](dataclasses.replace(task, errors=errors, rng=np.random.default_rng(2))).choice
    assert np.isfinite(total(errors, choice))
    assert total(task.costs, choice) <= task.budget_s


@pytest.mark.parametrize("error_model", ["quadratic", "measured"])
def test_spdy_learns_from_the_loss_and_tells_how(error_model):
    task = dataclasses.replace(problem(4), error_model=error_model)
    found = ALLOCATORS["spdy"](task)
    assert found.loss == pytest.approx(total(task.errors, found.choice))
    assert found.loss == found.trace[-1].incumbent
    assert found.coefficients.shape == (14,)
    assert found.trace[0].phase == "given", "it begins with what the measured errors say"


def test_measured_errors_that_are_the_loss_lead_to_the_optimum_at_once():
    task = problem(5)
    optimum = total(task.errors, ALLOCATORS["dp"](task).choice)
    found = ALLOCATORS["spdy"](dataclasses.replace(task, error_model="measured"))
    assert found.trace[0].loss == found.loss == pytest.approx(optimum)


def test_bad_problems():
    task = problem()
    with pytest.raises(ValueError, match="14 units with 16 levels"):
        dataclasses.replace(task, costs=task.costs[:, :-1])
    with pytest.raises(ValueError, match=r"unknown error model 'cubic'.*quadratic"):
        dataclasses.replace(task, error_model="cubic")
    with pytest.raises(ValueError, match="needs evaluate and rng"):
        ALLOCATORS["spdy"](dataclasses.replace(task, evaluate=None))
    with pytest.raises(ValueError, match="needs magnitudes"):
        ALLOCATORS["global-magnitude"](dataclasses.replace(task, magnitudes=None))

"""Allocators: which level every unit gets, behind one signature, so that baselines face the same budget as SPDY."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.search.budget_dp import InfeasibleBudget, solve_budget
from pipeline.search.error_models import ERROR_MODELS, fitted_coefficients
from pipeline.search.evolution import Ladders, evolve
from pipeline.search.losses import Evaluate, LossMemory, race
from pipeline.search.spdy import Knobs, Progress, TraceRow, search
from pipeline.search.surrogate import model_search
from targets.levels import Level

SPDY_SHARE = 0.5
"""Of the evaluations, where evolution goes on with what they found."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What an allocator decides on.

    Args:
        unit_names: [units] in execution order.
        levels: [levels] that the tables' columns stand for, dense first.
        errors: [units, levels] measured; infinite where a unit has no such level.
        costs: [units, levels] seconds; infinite where a unit has no such level.
        prunable: [units] False for units that stay dense; they are charged like the others.
        budget_s: seconds that all units may take together, the network's fixed time already taken off.
        magnitudes: gives a unit's |weights| in ascending order; ``global-magnitude`` needs it.
        evaluate: losses of plans on the calibration set; ``spdy``, ``spdy-evolution`` and ``surrogate`` need it.
        rng: the source of chance; they need it too.
        error_model: what ``spdy`` multiplies its coefficients with, a key of `ERROR_MODELS`.
        knobs: how they search.
        start: [units] a former round's plan, perhaps for another budget; ``spdy-evolution`` and ``surrogate`` go on
            from it.
    """

    unit_names: tuple[str, ...]
    levels: tuple[Level, ...]
    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    prunable: NDArray[np.bool_]
    budget_s: float
    magnitudes: Callable[[str], NDArray[np.floating]] | None = None
    evaluate: Evaluate | None = None
    rng: np.random.Generator | None = None
    error_model: str = "quadratic"
    knobs: Knobs | None = None
    start: Sequence[int] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.unit_names), len(self.levels))
        if self.errors.shape != shape or self.costs.shape != shape or self.prunable.shape != shape[:1]:
            raise ValueError(
                f"{shape[0]} units with {shape[1]} levels need tables of that shape, not errors {self.errors.shape}, "
                f"costs {self.costs.shape}, prunable {self.prunable.shape}"
            )
        if self.error_model not in ERROR_MODELS:
            raise ValueError(f"unknown error model {self.error_model!r}; there are {', '.join(ERROR_MODELS)}")

    def rows(self, table: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """The table's rows as `solve_budget` takes them: only the dense level for units that stay dense."""
        return [row if prunable else row[:1] for row, prunable in zip(table, self.prunable, strict=True)]

    def cost(self, choice: NDArray[np.int64]) -> float:
        """Seconds of a plan's units, added in their order."""
        return float(sum(self.costs[np.arange(len(choice)), choice].tolist()))

    def has(self, choice: NDArray[np.int64]) -> bool:
        """Whether every unit has the level that is chosen for it."""
        rows = np.arange(len(choice))
        return bool(np.isfinite(self.errors[rows, choice]).all() and np.isfinite(self.costs[rows, choice]).all())


@dataclass(frozen=True, slots=True)
class Allocation:
    """The level of every unit.

    Args:
        choice: [units] index into the problem's levels.
        loss: on the calibration set, where the allocator looked at it.
        coefficients: [units] sensitivities that the search learned; a start for the next round.
        trace: the search's evaluations.
    """

    choice: NDArray[np.int64]
    loss: float | None = None
    coefficients: NDArray[np.float64] | None = None
    trace: tuple[TraceRow, ...] = ()


def spdy(problem: Problem) -> Allocation:
    """Sensitivities learned by search on the calibration set; begins with what the measured errors say of them.

    The last evaluation is that of the least sum of measured errors, which the error model may not be able to express:
    the better plan counts.
    """
    evaluate, rng = _searching(problem)
    measured, costs = problem.rows(problem.errors), problem.rows(problem.costs)
    errors = ERROR_MODELS[problem.error_model](measured)
    knobs = problem.knobs or Knobs()
    memory, most = knobs.memory or LossMemory(), knobs.max_evaluations
    found = search(
        errors,
        costs,
        problem.budget_s,
        evaluate,
        rng,
        replace(
            knobs,
            memory=memory,
            max_evaluations=most if most is None else max(1, most - 1),
            extra_starts=(*knobs.extra_starts, fitted_coefficients(errors, measured)),
        ),
    )
    ours = Allocation(found.choice, found.loss, found.coefficients, found.trace)
    return ours if most == 1 else _better(ours, dynamic_program(problem).choice, evaluate, memory, knobs)


def _better(
    ours: Allocation, rival: NDArray[np.int64], evaluate: Evaluate, memory: LossMemory, knobs: Knobs
) -> Allocation:
    """The allocation, or its rival with the same coefficients if that has the lower loss."""
    assert ours.loss is not None
    plan, trace = tuple(rival.tolist()), ours.trace
    loss = memory.recall(plan, ours.loss)
    if loss is None:
        (judgement,) = race([plan], evaluate, ours.loss)
        memory.store(plan, judgement)
        loss = judgement.loss
        trace = (*trace, TraceRow(len(trace) + 1, loss, min(loss, ours.loss), "given", 0))
        if knobs.on_progress is not None:
            knobs.on_progress(Progress(min(loss, ours.loss), len(trace), 0))
    return replace(ours, trace=trace) if loss >= ours.loss else Allocation(rival, loss, ours.coefficients, trace)


def spdy_evolution(problem: Problem) -> Allocation:
    """SPDY's plan, then mutations of it that keep the budget; a former round's plan is brought to the new budget."""
    evaluate, rng = _searching(problem)
    knobs = problem.knobs or Knobs()
    most = knobs.max_evaluations
    ladders = Ladders(problem.rows(problem.errors), problem.rows(problem.costs), problem.budget_s)
    if problem.start is None:
        share = None if most is None else math.ceil(SPDY_SHARE * most)
        first = spdy(replace(problem, knobs=replace(knobs, max_evaluations=share)))
    else:
        first = Allocation(np.array(ladders.plan(ladders.repaired(ladders.place(problem.start)))))
    left = None if most is None else most - len(first.trace)
    if left == 0:
        return first
    done = len(first.trace)

    def show(progress: Progress) -> None:
        if knobs.on_progress is not None:
            knobs.on_progress(progress._replace(evaluations=done + progress.evaluations))

    rest = replace(knobs, max_evaluations=left, on_progress=show)
    found = evolve(first.choice.tolist(), ladders, evaluate, rng, rest)
    trace = [row._replace(evaluation=done + row.evaluation) for row in found.trace]
    return Allocation(found.choice, found.loss, first.coefficients, (*first.trace, *trace))


def surrogate(problem: Problem) -> Allocation:
    """Sensitivities fitted to the losses of plans that a model proposes.

    Begins with the least sum of errors, or with a former round's plan, brought to the new budget.
    """
    evaluate, rng = _searching(problem)
    rows = problem.rows(problem.errors), problem.rows(problem.costs)
    found = model_search(*rows, problem.budget_s, evaluate, rng, problem.knobs, problem.start)
    return Allocation(found.choice, found.loss, found.coefficients, found.trace)


def _searching(problem: Problem) -> tuple[Evaluate, np.random.Generator]:
    if problem.evaluate is None or problem.rng is None:
        raise ValueError("a search needs evaluate and rng")
    return problem.evaluate, problem.rng


def dynamic_program(problem: Problem) -> Allocation:
    """The least sum of measured errors."""
    return Allocation(solve_budget(problem.rows(problem.errors), problem.rows(problem.costs), problem.budget_s).choice)


def uniform(problem: Problem) -> Allocation:
    """One level for all prunable units: of those that meet the budget the one that removes least.

    A unit that has no such level gets its nearest one.
    """
    mean_errors = problem.errors[problem.prunable].sum(axis=0)
    gentlest_first = sorted(range(len(problem.levels)), key=lambda i: (problem.levels[i].amount, mean_errors[i]))
    return _first_within_budget(problem, [np.where(problem.prunable, _nearest(problem, i), 0) for i in gentlest_first])


def _nearest(problem: Problem, level: int) -> NDArray[np.int64]:
    """[units] the level itself where a unit has it, else its level of that precision with the nearest amount."""
    wanted = problem.levels[level]
    distance = [
        abs(own.amount - wanted.amount) + (own != wanted) * 1e-9 if own.precision == wanted.precision else np.inf
        for own in problem.levels
    ]
    has = np.isfinite(problem.errors) & np.isfinite(problem.costs)
    nearest: NDArray[np.int64] = np.where(has, distance, np.inf).argmin(axis=1)
    return nearest


def global_magnitude(problem: Problem) -> Allocation:
    """One threshold on |weight| for all prunable units, each rounded to its nearest level: the smallest that fits.

    Levels are dense and the unstructured ones in dense's precision.
    """
    if problem.magnitudes is None:
        raise ValueError("global-magnitude needs magnitudes")
    grids = [_grid(problem, i) for i in range(len(problem.unit_names))]
    steps = np.full((len(grids), len(problem.levels)), np.inf)
    for i, grid in enumerate(grids):
        if len(grid) > 1:
            amounts = np.array([problem.levels[level].amount for level in grid])
            steps[i, : len(grid) - 1] = _thresholds_between(amounts, problem.magnitudes(problem.unit_names[i]))
    thresholds = np.append(-np.inf, np.unique(steps[np.isfinite(steps)]))
    positions = ((steps <= threshold).sum(axis=1) for threshold in thresholds)
    choices = [np.array([grid[i] for grid, i in zip(grids, position, strict=True)]) for position in positions]
    return _first_within_budget(problem, choices)


def _grid(problem: Problem, unit: int) -> list[int]:
    """The levels that a threshold on |weight| can give a unit, the gentlest first."""
    if not problem.prunable[unit]:
        return [0]
    precision = problem.levels[0].precision
    grid = [
        i
        for i, level in enumerate(problem.levels)
        if level.family in ("dense", "unstructured")
        and level.precision == precision
        and np.isfinite(problem.errors[unit, i])
        and np.isfinite(problem.costs[unit, i])
    ]
    return sorted(grid, key=lambda i: problem.levels[i].amount)


def _thresholds_between(amounts: NDArray[np.float64], magnitudes: NDArray[np.floating]) -> NDArray[np.float64]:
    """[amounts - 1] thresholds from which on a unit's share of smaller weights is nearer to the next larger amount."""
    midpoints = (amounts[:-1] + amounts[1:]) / 2
    removed = np.ceil(midpoints * len(magnitudes)).astype(np.int64)
    thresholds: NDArray[np.float64] = magnitudes[removed - 1].astype(np.float64)
    return thresholds


def _first_within_budget(problem: Problem, choices: list[NDArray[np.int64]]) -> Allocation:
    """The first plan that meets the budget and whose levels all exist."""
    cheapest = np.inf
    for choice in filter(problem.has, choices):
        cost = problem.cost(choice)
        if cost <= problem.budget_s:
            return Allocation(choice.astype(np.int64))
        cheapest = min(cheapest, cost)
    raise InfeasibleBudget(cheapest, problem.budget_s)


ALLOCATORS: dict[str, Callable[[Problem], Allocation]] = {
    "spdy": spdy,
    "spdy-evolution": spdy_evolution,
    "surrogate": surrogate,
    "dp": dynamic_program,
    "uniform": uniform,
    "global-magnitude": global_magnitude,
}

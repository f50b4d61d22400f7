"""The best plan under a time budget: a dynamic program over Pareto frontiers of (cost, error).

A state is a choice of levels for the first units, with its exact cost and error. Unit by unit, every state is extended
by every level, and only states that nothing cheaper matches in error are kept. Nothing is rounded, so nothing adds up:
while a frontier fits in the allowed number of states the result is the true optimum. Two things keep it small: levels
that another level of their unit dominates are left out, and states whose Lagrangian lower bound exceeds the best known
plan are dropped.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from targets.errors import SpeedupError

_MOVES = 128
"""Levels that may enter the plan known beforehand; all pairs of them are looked at together."""
_ROUNDING = 1e-12
"""Relative width within which two sums of floats in different order may be the same number."""


@dataclass(frozen=True, slots=True)
class Solution:
    """The plan that `solve_budget` found.

    Args:
        choice: [units] index of the level of every unit.
        error: sum of the chosen levels' errors.
        cost: sum of the chosen levels' costs in seconds, added in the order of the units.
    """

    choice: NDArray[np.int64]
    error: float
    cost: float


class InfeasibleBudget(SpeedupError):  # noqa: N818 - the name that callers are promised
    """Even the cheapest choice of levels takes longer than the budget.

    Args:
        cheapest: least time in seconds that the units can take together.
        budget: time in seconds that they may take.
    """

    def __init__(self, cheapest: float, budget: float) -> None:
        super().__init__(
            f"The budget for all units is {budget * 1e3:.4g} ms, but the fastest choice of levels takes "
            f"{cheapest * 1e3:.4g} ms. Lower --speedup or add faster levels."
        )
        self.cheapest = cheapest
        self.budget = budget


@dataclass(frozen=True, slots=True)
class _Table:
    """Every unit's undominated levels as rows of [units, widest]: the cheapest first, errors falling.

    Positions in a row that hold no level have an infinite error and cost 0.
    """

    levels: NDArray[np.int64]
    costs: NDArray[np.float64]
    errors: NDArray[np.float64]

    def totals(self, plan: NDArray[np.int64]) -> tuple[float, float]:
        """Cost and error of a plan (positions in the rows), added in the order of the units, as frontiers add them."""
        return _from_start(self.costs[self.rows, plan]), _from_start(self.errors[self.rows, plan])

    @property
    def rows(self) -> NDArray[np.int64]:
        """Index of every unit."""
        return np.arange(len(self.costs))


@dataclass(frozen=True, slots=True)
class _Dual:
    """What a price of time tells about every plan.

    Args:
        price: error that one second is worth (the multiplier of the Lagrangian).
        priced: [units, widest] error + price·cost.
        plan: [units] a plan within the budget, nearly the cheapest at this price.
    """

    price: float
    priced: NDArray[np.float64]
    plan: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Frontier:
    """States in ascending order of cost and descending order of error, with the way back to the branching before."""

    costs: NDArray[np.float64]
    errors: NDArray[np.float64]
    parents: NDArray[np.int64]
    positions: NDArray[np.int64]


def solve_budget(
    errors: Sequence[ArrayLike], costs: Sequence[ArrayLike], budget: float, buckets: int = 10_000
) -> Solution:
    """Choose one level for every unit so that the errors' sum is least and the costs' sum is at most ``budget``.

    Solves equation 1 of SPDY (Frantar & Alistarh, 2022); unlike its Algorithm 1 it never rounds a cost to a bucket. The
    plan is never over the budget, and it is optimal unless a frontier outgrows ``buckets``.

    Args:
        errors: for every unit [levels], any unit; infinite for a level that must not be chosen.
        costs: for every unit [levels], seconds >= 0; infinite for a level that must not be chosen.
        budget: seconds that the chosen levels may take together.
        buckets: how many states are carried from unit to unit; a larger frontier is thinned to one state a bucket of
            cost.

    Returns:
        The plan with its error and cost.

    Raises:
        InfeasibleBudget: no choice of levels meets the budget; carries the cheapest cost that can be reached.
        ValueError: NaN, a negative cost, an error of minus infinity, lengths that differ, a unit without a level that
            may be chosen.
    """
    if np.isnan(budget):
        raise ValueError("budget is NaN")
    if buckets < 1:
        raise ValueError(f"buckets must be at least 1, not {buckets}")
    table = _undominated(*_padded(errors, costs))
    cheapest, _ = table.totals(np.zeros(len(table.costs), dtype=np.int64))
    if cheapest > budget:
        raise InfeasibleBudget(cheapest, budget)
    plan = table.errors.argmin(axis=1) if len(table.errors) else np.zeros(0, dtype=np.int64)
    if table.totals(plan)[0] > budget:
        with np.errstate(all="ignore"):  # extreme magnitudes only weaken the bounds
            plan = _search_frontiers(table, _dual(table, plan, budget), budget, buckets)
    cost, error = table.totals(plan)
    return Solution(table.levels[table.rows, plan], error, cost)


def _padded(errors: Sequence[ArrayLike], costs: Sequence[ArrayLike]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Errors and costs [units, widest], checked; infinite where a unit has no level or must not choose it."""
    error_rows = [np.asarray(row, dtype=np.float64) for row in errors]
    cost_rows = [np.asarray(row, dtype=np.float64) for row in costs]
    if len(error_rows) != len(cost_rows):
        raise ValueError(f"errors are given for {len(error_rows)} units, costs for {len(cost_rows)}")
    for i, (error, cost) in enumerate(zip(error_rows, cost_rows, strict=True)):
        if error.ndim != 1 or error.shape != cost.shape:
            raise ValueError(f"unit {i}: errors {error.shape} and costs {cost.shape} must be 1-D and of one length")
    widest = max((len(row) for row in cost_rows), default=0)
    padded_errors, padded_costs = np.full((2, len(cost_rows), widest), np.inf)
    for i, (error, cost) in enumerate(zip(error_rows, cost_rows, strict=True)):
        padded_errors[i, : len(error)], padded_costs[i, : len(cost)] = error, cost
    _refuse(np.isnan(padded_errors) | np.isnan(padded_costs), "errors and costs must not be NaN")
    _refuse((padded_costs < 0) | (padded_errors == -np.inf), "costs must be >= 0 and errors above minus infinity")
    unusable = np.isinf(padded_errors) | np.isinf(padded_costs)
    _refuse(unusable.all(axis=1, keepdims=True), "no level with a finite error and a finite cost")
    padded_errors[unusable] = padded_costs[unusable] = np.inf
    return padded_errors, padded_costs


def _refuse(wrong: NDArray[np.bool_], reason: str) -> None:
    if wrong.any():
        raise ValueError(f"unit {np.argwhere(wrong)[0][0]}: {reason}")


def _undominated(errors: NDArray[np.float64], costs: NDArray[np.float64]) -> _Table:
    """The Pareto filter: a level stays if every cheaper or equally cheap one has a larger error."""
    order = np.lexsort((errors, costs), axis=1)
    errors, costs = np.take_along_axis(errors, order, axis=1), np.take_along_axis(costs, order, axis=1)
    stays = np.isfinite(errors)
    stays[:, 1:] &= errors[:, 1:] < np.minimum.accumulate(errors, axis=1)[:, :-1]
    return _Table(order, np.where(stays, costs, 0.0), np.where(stays, errors, np.inf))


def _dual(table: _Table, most_accurate: NDArray[np.int64], budget: float) -> _Dual:
    """The price that gives the best lower bound on the error of every plan within the budget.

    The line through a plan within the budget and one above it gives a price; the best plan at this price replaces one
    of the two, until neither changes (Handler & Zang, 1980; Jüttner et al., 2001).
    """
    within = np.zeros_like(most_accurate)
    within_cost, within_error = table.totals(within)
    above_cost, above_error = table.totals(most_accurate)
    price, priced = 0.0, table.errors
    while True:
        next_price = (within_error - above_error) / (above_cost - within_cost)
        if not 0 < next_price < np.inf or next_price == price:
            break
        price, priced = next_price, table.errors + next_price * table.costs
        plan = priced.argmin(axis=1)
        cost, error = table.totals(plan)
        if cost <= budget and error < within_error:
            within, within_cost, within_error = plan, cost, error
        elif budget < cost < above_cost:
            above_cost, above_error = cost, error
        else:
            break
    return _Dual(price, priced, within)


def _improved(table: _Table, dual: _Dual, budget: float) -> NDArray[np.int64]:
    """The dual's plan after the best changes of one or two units at a time, while they save error within the budget.

    Only the levels nearest to the best of their unit at the dual's price take part: the optimum is among them or near.
    """
    excess = (dual.priced - dual.priced.min(axis=1, keepdims=True)).ravel()
    moves = np.argpartition(excess, _MOVES)[:_MOVES] if len(excess) > _MOVES else np.arange(len(excess))
    moves = moves[np.isfinite(excess[moves])]
    units, positions = np.divmod(moves, table.costs.shape[1])
    plan = dual.plan.copy()
    for _ in table.rows:
        slack = budget - table.totals(plan)[0]
        extra = table.costs[units, positions] - table.costs[units, plan[units]]
        saved = table.errors[units, plan[units]] - table.errors[units, positions]
        pairs = np.where(extra[:, None] + extra <= slack, saved[:, None] + saved, -np.inf)
        pairs[units[:, None] == units] = -np.inf
        np.fill_diagonal(pairs, np.where(extra <= slack, saved, -np.inf))
        first, second = np.unravel_index(pairs.argmax(), pairs.shape)
        if not pairs[first, second] > 0:
            break
        plan[units[[first, second]]] = positions[[first, second]]
    return plan


def _search_frontiers(table: _Table, dual: _Dual, budget: float, buckets: int) -> NDArray[np.int64]:
    """The dynamic program itself. States are also completed by the rest of a plan known beforehand."""
    least = dual.priced.min(axis=1)
    bound_ahead = _from_here_on(least) - dual.price * budget
    best = _improved(table, dual, budget)
    best = best if table.totals(best)[0] <= budget else dual.plan
    best_error = table.totals(best)[1]
    rounding = _ROUNDING * (np.abs(least).sum() + dual.price * budget + abs(best_error))
    # Rows keep only levels that some plan may hold that is not worse than the best one known.
    hopeful = np.isfinite(table.errors) & ~(dual.priced - least[:, None] > best_error - bound_ahead[0] + rounding)
    cheapest, is_decided = hopeful.argmax(axis=1), (hopeful.sum(axis=1) == 1).tolist()
    only_costs, only_errors = (rows[table.rows, cheapest].tolist() for rows in (table.costs, table.errors))
    limits = budget - _from_here_on(table.costs[table.rows, cheapest]) + _ROUNDING * budget
    limits[-1] = budget
    spared = budget - _from_here_on(table.costs[table.rows, dual.plan])
    plan_errors = _from_here_on(table.errors[table.rows, dual.plan])
    costs, errors = np.zeros(1), np.zeros(1)
    branchings: dict[int, _Frontier] = {}
    for i in range(len(table.costs)):
        if is_decided[i]:
            costs, errors = costs + only_costs[i], errors + only_errors[i]
            if cheapest[i] == dual.plan[i] and i + 1 < len(table.costs):
                continue  # the states are completed as they were before
        else:
            slack = best_error + rounding - bound_ahead[i + 1]
            positions = hopeful[i].nonzero()[0]
            frontier = _extended(costs, errors, table, i, positions, limits[i + 1], dual.price, slack)
            branchings[i] = frontier = _thinned(frontier, dual.price, buckets)
            costs, errors = frontier.costs, frontier.errors
        state = int(costs.searchsorted(spared[i + 1], side="right")) - 1
        if state >= 0 and errors[state] + plan_errors[i + 1] < best_error:
            plan = np.concatenate((_traced(branchings, cheapest[: i + 1], state), dual.plan[i + 1 :]))
            cost, error = table.totals(plan)
            if cost <= budget and error < best_error:
                best, best_error = plan, error
    return best


def _from_start(values: NDArray[np.float64]) -> float:
    """Sum from the first value to the last; np.sum adds in another order."""
    return float(np.cumsum(values)[-1]) if len(values) else 0.0


def _from_here_on(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n + 1] sums of the values from each position to the end."""
    return np.append(np.cumsum(values[::-1])[::-1], 0.0)


def _extended(
    costs: NDArray[np.float64],
    errors: NDArray[np.float64],
    table: _Table,
    unit: int,
    positions: NDArray[np.int64],
    limit: float,
    price: float,
    slack: float,
) -> _Frontier:
    """Every state with every level, less what breaks ``limit``, cannot beat the best plan, or is dominated."""
    extended_costs = (table.costs[unit, positions][:, None] + costs).ravel()
    extended_errors = (table.errors[unit, positions][:, None] + errors).ravel()
    kept = ((extended_costs <= limit) & ~(extended_errors + price * extended_costs > slack)).nonzero()[0]
    kept = kept[extended_costs[kept].argsort(kind="stable")]
    falling = extended_errors[kept]
    stays = np.ones(len(kept), dtype=np.bool_)
    np.less(falling[1:], np.minimum.accumulate(falling)[:-1], out=stays[1:])
    kept = kept[stays]
    columns, parents = np.divmod(kept, len(costs))
    return _Frontier(extended_costs[kept], falling[stays], parents, positions[columns])


def _thinned(frontier: _Frontier, price: float, buckets: int) -> _Frontier:
    """At most ``buckets`` states: of those in one bucket of cost, the one with the lowest bound, at its exact cost."""
    costs = frontier.costs
    if len(costs) <= buckets:
        return frontier
    bucket = np.minimum((costs - costs[0]) / (costs[-1] - costs[0]) * buckets, buckets - 1).astype(np.int64)
    order = np.lexsort((frontier.errors + price * costs, bucket))
    keep = order[np.append(True, np.diff(bucket[order]) > 0)]
    return _Frontier(costs[keep], frontier.errors[keep], frontier.parents[keep], frontier.positions[keep])


def _traced(branchings: dict[int, _Frontier], plan: NDArray[np.int64], state: int) -> NDArray[np.int64]:
    """Positions of the levels that led to a state of the last branching; ``plan`` has those of other units."""
    plan = plan.copy()
    for unit in reversed(branchings):
        plan[unit] = branchings[unit].positions[state]
        state = int(branchings[unit].parents[state])
    return plan

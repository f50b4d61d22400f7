"""Evolutionary refinement of a plan under a time budget: what no sum of layer errors can express.

After EvoPress (Sieberling et al., 2025), whose switch of levels keeps a model's size. Here it keeps the latency table's
time: what one unit gains in accuracy others pay for in seconds, and what is left over is spent again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.search.budget_dp import InfeasibleBudget
from pipeline.search.generations import Generations
from pipeline.search.losses import Evaluate, Plan
from pipeline.search.spdy import Knobs, TraceRow

MOST_CHANGES = 3
"""Units that a mutation makes gentler, at most; small mutations are the more frequent ones."""


@dataclass(frozen=True, slots=True)
class Evolved:
    """What evolution found.

    Args:
        choice: [units] index of the level of every unit.
        loss: of this plan, never above that of the plan it began with.
        trace: every evaluation in order.
    """

    choice: NDArray[np.int64]
    loss: float
    trace: tuple[TraceRow, ...]


class Ladders:
    """Every unit's levels from the slowest to the fastest, less those that another one beats in both tables.

    Args:
        errors: for every unit [levels]; infinite for a level that must not be chosen.
        costs: for every unit [levels], seconds; infinite for a level that must not be chosen.
        budget: seconds that all units may take together.
    """

    def __init__(self, errors: Sequence[ArrayLike], costs: Sequence[ArrayLike], budget: float) -> None:
        self._errors = [np.asarray(row, dtype=np.float64) for row in errors]
        self._costs = [np.asarray(row, dtype=np.float64) for row in costs]
        self._budget = budget
        self.rungs = [_rungs(error, cost) for error, cost in zip(self._errors, self._costs, strict=True)]
        self.free = [unit for unit, rungs in enumerate(self.rungs) if len(rungs) > 1]

    def place(self, plan: Sequence[int]) -> list[int]:
        """Rung of every unit's level; a level that is none takes the nearest faster one, or the fastest."""
        return [
            next((i for i, level in enumerate(rungs) if costs[level] <= costs[chosen]), len(rungs) - 1)
            for rungs, costs, chosen in zip(self.rungs, self._costs, plan, strict=True)
        ]

    def plan(self, places: Sequence[int]) -> Plan:
        """Level of every unit."""
        return tuple(rungs[place] for rungs, place in zip(self.rungs, places, strict=True))

    def fits(self, places: Sequence[int]) -> bool:
        """Whether a plan keeps the budget."""
        return self._seconds(places) <= self._budget

    def repaired(self, places: list[int]) -> list[int]:
        """The plan within the budget: steps that buy a second at the least error, then what is left spent again.

        Raises:
            InfeasibleBudget: even the fastest plan takes longer.
        """
        places = list(places)
        while not self.fits(places):
            steps = {unit: self._price(unit, places[unit]) for unit in self.free if self._has_faster(unit, places)}
            if not steps:
                raise InfeasibleBudget(self._seconds(places), self._budget)
            places[min(steps, key=lambda unit: steps[unit])] += 1
        while gentler := [unit for unit in self.free if places[unit] > 0 and self._affords(unit, places)]:
            places[max(gentler, key=lambda unit: self._price(unit, places[unit] - 1))] -= 1
        return places

    def mutated(self, places: Sequence[int], rng: np.random.Generator) -> tuple[Plan, int]:
        """A random neighbour within the budget, and how many units differ.

        A few units become gentler by a random number of rungs. Random others become faster until the budget is kept,
        and then random ones gentler while there is time for it.
        """
        mutant = list(places)
        for unit in self._drawn_gentler(mutant, rng):
            mutant[unit] -= _step(mutant[unit], rng)
        grown = {unit for unit in self.free if mutant[unit] < places[unit]}
        while not self.fits(mutant):
            payers = [unit for unit in self.free if self._has_faster(unit, mutant) and unit not in grown]
            if not payers:
                grown = set()
                continue
            unit = payers[rng.integers(len(payers))]
            mutant[unit] += _step(len(self.rungs[unit]) - 1 - mutant[unit], rng)
        for unit in rng.permutation(self.free).tolist():
            while mutant[unit] > 0 and self._affords(unit, mutant):
                mutant[unit] -= 1
        return self.plan(mutant), sum(a != b for a, b in zip(mutant, places, strict=True))

    def _drawn_gentler(self, places: Sequence[int], rng: np.random.Generator) -> list[int]:
        candidates = [unit for unit in self.free if places[unit] > 0]
        count = min(int(min(rng.integers(1, MOST_CHANGES + 1, size=2))), len(candidates))
        return [candidates[i] for i in rng.choice(len(candidates), count, replace=False)] if candidates else []

    def _seconds(self, places: Sequence[int]) -> float:
        """Time of a plan, added in the units' order as everywhere."""
        return sum(float(self._costs[unit][self.rungs[unit][place]]) for unit, place in enumerate(places))

    def _has_faster(self, unit: int, places: Sequence[int]) -> bool:
        return places[unit] + 1 < len(self.rungs[unit])

    def _affords(self, unit: int, places: list[int]) -> bool:
        return self.fits([place - (u == unit) for u, place in enumerate(places)])

    def _price(self, unit: int, place: int) -> float:
        """Error that the step to the next faster rung costs, a second."""
        here, there = self.rungs[unit][place], self.rungs[unit][place + 1]
        error = float(self._errors[unit][there] - self._errors[unit][here])
        return error / float(self._costs[unit][here] - self._costs[unit][there])


def evolve(
    start: Sequence[int],
    ladders: Ladders,
    evaluate: Evaluate,
    rng: np.random.Generator,
    knobs: Knobs | None = None,
) -> Evolved:
    """Improve a plan by mutations that keep the budget; of a generation and its parent the best one goes on.

    Ends after ``knobs.max_evaluations``, or once ``knobs.patience`` evaluations brought no improvement.

    Args:
        start: [units] levels within the budget.
        ladders: the levels to move on, and the budget.
        evaluate: losses of plans.
        rng: the only source of chance.
        knobs: limits, progress and memory; starts, extra starts and batch are the other search's.

    Raises:
        ValueError: the start breaks the budget.
    """
    places = ladders.place(start)
    if not ladders.fits(places):
        raise ValueError("evolution begins with a plan within the budget")
    found = Generations(evaluate, knobs or Knobs(), "evolution", ladders.plan(places))
    generation = {found.plan: 0} if math.isinf(found.loss) else offspring(found, ladders, rng, found.room)
    while generation:
        found.judge(generation)
        generation = offspring(found, ladders, rng, found.room)
    return Evolved(np.array(found.plan, dtype=np.int64), found.loss, tuple(found.trace))


def offspring(found: Generations, ladders: Ladders, rng: np.random.Generator, room: int) -> dict[Plan, int]:
    """Up to ``room`` mutants of the best plan that are not known to be worse, and how many units each changes."""
    mutants: dict[Plan, int] = {}
    places = ladders.place(found.plan)
    for _ in range(4 * room):  # small problems have few plans that are still unknown
        mutant, changes = ladders.mutated(places, rng)
        if changes and found.is_new(mutant):
            mutants[mutant] = changes
        if len(mutants) == room:
            break
    return mutants


def _rungs(errors: NDArray[np.float64], costs: NDArray[np.float64]) -> list[int]:
    """The undominated levels: each one faster than the one before it, and worse."""
    usable = np.flatnonzero(np.isfinite(errors) & np.isfinite(costs))
    rungs: list[int] = []
    for level in sorted(usable.tolist(), key=lambda level: (errors[level], costs[level])):
        if not rungs or costs[level] < costs[rungs[-1]]:
            rungs.append(level)
    return rungs


def _step(most: int, rng: np.random.Generator) -> int:
    """From 1 to ``most`` rungs, every power of two as often as the next."""
    return min(most, 1 << int(rng.integers(0, max(1, most.bit_length()))))

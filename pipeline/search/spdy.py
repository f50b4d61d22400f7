"""SPDY's search: learn how sensitive every unit is by asking for plans and looking at their losses.

Algorithm 4 of SPDY (Frantar & Alistarh, 2022). A vector of coefficients, one a unit, weighs the units' errors; the
budget's dynamic program turns it into a plan; the plan's loss on the calibration set judges it.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.search.budget_dp import solve_budget
from pipeline.search.error_models import forbidding_by_cost
from pipeline.search.losses import Evaluate, LossMemory, Plan, race

_LARGEST_NEIGHBOURHOOD = 0.1
"""Share of the coefficients that the first neighbourhood draws again."""


class TraceRow(NamedTuple):
    """One evaluation. A loss above the incumbent's may be that of a part of the calibration set, a lower bound, or just
    above it where more was not asked.

    ``phase`` is ``given``, ``random``, ``neighbourhood``, ``evolution`` or ``surrogate``; ``neighbourhood`` the number
    of coefficients drawn again, in the last two that of units changed.
    """

    evaluation: int
    loss: float
    incumbent: float
    phase: str
    neighbourhood: int


class Progress(NamedTuple):
    """Where a search stands: the incumbent's loss, evaluations done, and about how many are still to come."""

    loss: float
    evaluations: int
    evaluations_left: int


@dataclass(frozen=True, slots=True)
class Knobs:
    """How a search runs.

    Args:
        starts: random vectors of coefficients to begin with.
        patience: trials without an improvement after which a neighbourhood is left for the next smaller one.
        extra_starts: vectors of coefficients to try first, such as a former round's, each [units].
        max_evaluations: end after so many evaluations.
        should_stop: asked after every trial; True ends the search with the incumbent.
        on_progress: told after every evaluation.
        memory: losses known from former rounds over the same calibration set; this search adds its own.
        batch: starts whose plans are judged together, in a race on growing parts of the calibration set; 1 as in the
            paper. What is found depends on this number, not on how many workers share the evaluations.
    """

    starts: int = 100
    patience: int = 100
    extra_starts: Sequence[ArrayLike] = ()
    max_evaluations: int | None = None
    should_stop: Callable[[], bool] | None = None
    on_progress: Callable[[Progress], None] | None = None
    memory: LossMemory | None = None
    batch: int = 1

    def __post_init__(self) -> None:
        if self.starts < 0 or self.patience < 0:
            raise ValueError(f"starts and patience must be >= 0, not {self.starts} and {self.patience}")
        if self.starts + len(self.extra_starts) == 0:
            raise ValueError("a search needs a start: starts is 0 and extra_starts is empty")
        if self.max_evaluations is not None and self.max_evaluations < 1:
            raise ValueError(f"max_evaluations must be at least 1, not {self.max_evaluations}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found.

    Args:
        choice: [units] index of the level of every unit.
        loss: of this plan; infinite if no plan had a finite one.
        coefficients: [units] what units' errors are weighed by, as far as was learned; a start for the next round.
        trace: every evaluation in order.
    """

    choice: NDArray[np.int64]
    loss: float
    coefficients: NDArray[np.float64]
    trace: tuple[TraceRow, ...]


class _Proposal(NamedTuple):
    coefficients: NDArray[np.float64]
    phase: str
    neighbourhood: int
    trials_left: int


def search(
    errors: Sequence[ArrayLike],
    costs: Sequence[ArrayLike],
    budget: float,
    evaluate: Evaluate,
    rng: np.random.Generator,
    knobs: Knobs | None = None,
) -> SearchResult:
    """Look for the coefficients whose plan within the budget has the least loss.

    Args:
        errors: for every unit [levels], its errors at coefficient 1 (see `error_models`); infinite for a level that
            must not be chosen.
        costs: for every unit [levels], seconds.
        budget: seconds that all units may take together.
        evaluate: loss of a plan; NaN counts as infinite.
        rng: the only source of chance: the same state gives the same plan.
        knobs: how the search runs; by default as in the paper.

    Returns:
        The best plan evaluated, its loss and coefficients, and the trace.

    Raises:
        InfeasibleBudget: no plan meets the budget.
        ValueError: tables that `solve_budget` refuses, or an extra start of the wrong length or below 0.
    """
    state = _Search(errors, costs, budget, evaluate, knobs or Knobs())
    for batch in _batches(state, rng):
        state.try_out(batch)
        if state.is_over():
            break
    return SearchResult(np.array(state.plan, dtype=np.int64), state.loss, state.coefficients, tuple(state.trace))


def _batches(state: "_Search", rng: np.random.Generator) -> Iterator[list[_Proposal]]:
    """Coefficients to try: given ones, random ones, then the incumbent's with fewer and fewer of them drawn again."""
    knobs, units = state.knobs, len(state.errors)
    free = np.array([i for i, row in enumerate(state.errors) if len(row) > 1], dtype=np.int64)
    largest = math.ceil(_LARGEST_NEIGHBOURHOOD * len(free))
    starts = [(_checked_start(given, units), "given") for given in knobs.extra_starts]
    total = len(starts) + knobs.starts
    while trials := total - state.trials:
        size = min(knobs.batch, trials, state.room())
        drawn = [starts.pop(0) if starts else (rng.uniform(size=units), "random") for _ in range(size)]
        left = trials + largest * knobs.patience - 1
        yield [_Proposal(vector, phase, 0, left - i) for i, (vector, phase) in enumerate(drawn)]
    for size in range(largest, 0, -1):
        in_vain = 0
        while in_vain < knobs.patience:
            coefficients = state.coefficients.copy()
            coefficients[rng.choice(free, size, replace=False)] = rng.uniform(size=size)
            before = state.loss
            yield [_Proposal(coefficients, "neighbourhood", size, size * knobs.patience - in_vain - 1)]
            in_vain = 0 if state.loss < before else in_vain + 1


def _checked_start(coefficients: ArrayLike, units: int) -> NDArray[np.float64]:
    start = np.array(coefficients, dtype=np.float64)
    if start.shape != (units,) or not np.isfinite(start).all() or (start < 0).any():
        raise ValueError(f"an extra start needs {units} finite coefficients >= 0, one a unit")
    return start


class _Search:
    """The incumbent, and what was tried so far."""

    def __init__(
        self,
        errors: Sequence[ArrayLike],
        costs: Sequence[ArrayLike],
        budget: float,
        evaluate: Evaluate,
        knobs: Knobs,
    ) -> None:
        self.errors, self._costs = forbidding_by_cost(errors, costs)
        self.knobs = knobs
        self.plan: Plan = ()
        self.loss = math.inf
        self.coefficients = np.ones(len(self.errors))
        self.trace: list[TraceRow] = []
        self.trials = 0
        self._budget = budget
        self._evaluate = evaluate
        self._memory = knobs.memory or LossMemory()

    def try_out(self, batch: Sequence[_Proposal]) -> None:
        """Turn the proposals into plans, and make the one with the lowest loss the incumbent if it is lower still."""
        plans = [self._plan(proposal) for proposal in batch]
        self.trials += len(batch)
        limit = self.loss
        known = {plan: self._memory.recall(plan, limit) for plan in plans}
        new = [plan for plan, loss in known.items() if loss is None]
        judged = dict(zip(new, race(new, self._evaluate, limit), strict=True)) if new else {}
        for plan, judgement in judged.items():
            self._memory.store(plan, judgement)
        complete = {plan: loss for plan, loss in known.items() if loss is not None}
        complete |= {plan: judgement.loss for plan, judgement in judged.items() if judgement.complete}
        best = min(complete, key=lambda plan: complete[plan], default=plans[0])
        if not self.plan or complete.get(best, math.inf) < limit:
            self.plan, self.loss = best, complete.get(best, math.inf)
            self.coefficients = batch[plans.index(best)].coefficients
        for plan in new:
            self._record(judged[plan].loss, batch[plans.index(plan)])

    def room(self) -> int:
        """How many evaluations are still allowed."""
        most = self.knobs.max_evaluations
        return sys.maxsize if most is None else most - len(self.trace)

    def is_over(self) -> bool:
        """Whether a limit ends the search now."""
        return self.room() == 0 or (self.knobs.should_stop is not None and self.knobs.should_stop())

    def _plan(self, proposal: _Proposal) -> Plan:
        weighed = [c * row for c, row in zip(proposal.coefficients, self.errors, strict=True)]
        return tuple(solve_budget(weighed, self._costs, self._budget).choice.tolist())

    def _record(self, loss: float, proposal: _Proposal) -> None:
        evaluation = len(self.trace) + 1
        self.trace.append(TraceRow(evaluation, loss, self.loss, proposal.phase, proposal.neighbourhood))
        if self.knobs.on_progress is not None:
            left = math.ceil(proposal.trials_left * evaluation / self.trials)
            if self.knobs.max_evaluations is not None:
                left = min(left, self.knobs.max_evaluations - evaluation)
            self.knobs.on_progress(Progress(self.loss, evaluation, left))

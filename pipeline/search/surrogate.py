"""Search by a model of the loss: what every unit's error costs is fitted to the plans seen, and solved for exactly.

Near its least value the loss is taken as a weighted sum of the units' errors, with weights >= 0 by least squares; the
budget's dynamic program finds the best plan of that model at once. Observations that are weighed anew give models that
differ where little is known, and so plans that are worth a look (Thompson sampling by the bootstrap, Eckles & Kaptein,
2014, with the exponential weights of Rubin, 1981).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import nnls

from pipeline.search.budget_dp import solve_budget
from pipeline.search.error_models import forbidding_by_cost
from pipeline.search.evolution import Ladders, offspring
from pipeline.search.generations import Generations
from pipeline.search.losses import Evaluate, Plan
from pipeline.search.spdy import Knobs, SearchResult

FIRST_SPREAD = 1.0
"""Standard deviation of the logarithm of the weights that the first plans are made with."""
SPREAD = 0.1
"""The same of what fitted weights are multiplied with."""
PRIOR = 0.3
"""How much the belief that an error costs the same in every unit counts, in observations of the best plan."""


class Surrogate:
    """A loss that is a constant and a weighted sum of the units' errors.

    Args:
        errors: for every unit [levels]; infinite for a level that must not be chosen.
        costs: for every unit [levels], seconds; infinite for a level that must not be chosen.
        budget: seconds that all units may take together.
    """

    def __init__(self, errors: Sequence[ArrayLike], costs: Sequence[ArrayLike], budget: float) -> None:
        self._errors, self._costs = forbidding_by_cost(errors, costs)
        self._budget = budget

    @property
    def units(self) -> int:
        """How many units a plan has."""
        return len(self._errors)

    def best_plan(self, weights: NDArray[np.float64]) -> Plan:
        """The plan within the budget of the least weighted sum of errors."""
        weighed = [weight * row for weight, row in zip(weights, self._errors, strict=True)]
        return tuple(solve_budget(weighed, self._costs, self._budget).choice.tolist())

    def fit(self, losses: Mapping[Plan, float], counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """[units] weights >= 0 by least squares of the relative residuals; plans near the best count most.

        Args:
            losses: of plans, above 0.
            counts: [plans] how often each one counts.
        """
        observed = np.array(list(losses.values()))
        features = np.array([[row[i] for row, i in zip(self._errors, plan, strict=True)] for plan in losses])
        scale = np.sqrt(counts) * observed.min() / observed**2
        sums = features.sum(axis=1)
        energy = float((scale * sums) @ (scale * sums))
        common = float((scale * sums) @ (scale * observed)) / energy if energy > 0 else 1.0
        # Ridge towards the common weight, in units of what the feature explains.
        ridge = PRIOR * np.maximum(features.std(axis=0), 1e-12) / observed.min()
        rows = np.vstack([np.column_stack([scale[:, None] * features, scale]), np.diag([*ridge, 0.0])[:-1]])
        weights: NDArray[np.float64] = nnls(
            rows, np.concatenate([scale * observed, ridge * common]), maxiter=50 * rows.shape[1]
        )[0][:-1]
        return weights


def model_search(
    errors: Sequence[ArrayLike],
    costs: Sequence[ArrayLike],
    budget: float,
    evaluate: Evaluate,
    rng: np.random.Generator,
    knobs: Knobs | None = None,
    start: Sequence[int] | None = None,
) -> SearchResult:
    """Ask a model for plans, judge them, fit the model anew; where it repeats itself, mutants of the best plan help.

    Ends after ``knobs.max_evaluations``, or once ``knobs.patience`` evaluations brought no improvement.

    Args:
        errors: see `Surrogate`.
        costs: see `Surrogate`.
        budget: see `Surrogate`.
        evaluate: losses of plans.
        rng: the only source of chance.
        knobs: limits, progress and memory, whose losses of former rounds the model learns from.
        start: [units] a plan to begin with, brought to the budget; None for that of the least sum of errors.

    Raises:
        InfeasibleBudget: no plan meets the budget.
    """
    surrogate, ladders = Surrogate(errors, costs, budget), Ladders(errors, costs, budget)
    first = surrogate.best_plan(np.ones(surrogate.units))  # says so if the budget cannot be met
    if start is not None:
        first = ladders.plan(ladders.repaired(ladders.place(start)))
    found = Generations(evaluate, knobs or Knobs(), "surrogate", first)
    generation = {found.plan: 0} if np.isinf(found.loss) else _proposals(surrogate, ladders, found, rng)
    while generation:
        found.judge(generation)
        generation = _proposals(surrogate, ladders, found, rng)
    losses = _above_zero(found.memory.losses())
    weights = surrogate.fit(losses, np.ones(len(losses))) if len(losses) > 1 else np.ones(surrogate.units)
    return SearchResult(np.array(found.plan, dtype=np.int64), found.loss, weights, tuple(found.trace))


def _proposals(surrogate: Surrogate, ladders: Ladders, found: Generations, rng: np.random.Generator) -> dict[Plan, int]:
    """Plans for the next generation, and in how many units each differs from the best one so far."""
    room, losses = found.room, _above_zero(found.memory.losses())
    spread = SPREAD if len(losses) > 1 else FIRST_SPREAD
    proposals: dict[Plan, int] = {}
    for attempt in range(2 * room):
        counts = rng.exponential(size=len(losses)) if attempt else np.ones(len(losses))
        weights = surrogate.fit(losses, counts) if len(losses) > 1 else np.ones(surrogate.units)
        noise = np.exp(spread * rng.standard_normal(surrogate.units)) if attempt else np.ones(surrogate.units)
        plan = surrogate.best_plan(weights * noise)
        if found.is_new(plan):
            proposals[plan] = sum(a != b for a, b in zip(plan, found.plan, strict=True))
        if len(proposals) == room:
            return proposals
    return proposals | offspring(found, ladders, rng, room - len(proposals))


def _above_zero(losses: Mapping[Plan, float]) -> dict[Plan, float]:
    """A plan that changes nothing has no relative residual."""
    return {plan: loss for plan, loss in losses.items() if loss > 0}

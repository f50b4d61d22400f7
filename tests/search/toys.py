"""Networks made of two tables, whose true sensitivities only their loss knows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tests.search.timings import Rows, generated_timings, quadratic


@dataclass
class Toy:
    """A loss over plans that a search may only ask for; counts how often it was asked for each plan.

    The loss is the sum of sensitivity x error, plus a penalty for neighbouring units that are both strongly compressed,
    which no sum of layer errors can express.
    """

    costs: Rows
    sensitivities: NDArray[np.float64]
    exponents: NDArray[np.float64]
    budget: float
    asked: list[tuple[int, ...]] = field(default_factory=list)
    stops_early: bool = False
    interaction: float = 2

    def loss(self, plan: tuple[int, ...]) -> float:
        position = np.array([level / (len(row) - 1) for level, row in zip(plan, self.costs, strict=True)])
        errors = self.sensitivities * position**self.exponents
        return float(errors.sum() + self.interaction * (errors[1:] * errors[:-1]).sum())

    def evaluate(self, plans: Sequence[tuple[int, ...]], limit: float, share: float = 1.0) -> list[float]:
        self.asked += plans
        losses = [self.loss(plan) for plan in plans]
        return [limit + 1e-9 if self.stops_early and loss > limit else loss for loss in losses]

    @property
    def errors(self) -> Rows:
        return quadratic(self.costs)


def toy(seed: int, units: int = 16, levels: int = 12, share: float = 0.4, stops_early: bool = False) -> Toy:
    """A toy whose units' sensitivities span two orders of magnitude; the budget is a share of its dense time."""
    rng = np.random.default_rng(seed)
    costs = generated_timings(units, levels, rng)
    budget = share * sum(row[0] for row in costs)
    return Toy(costs, 10 ** rng.uniform(-2, 0, units), rng.uniform(1.5, 4, units), budget, stops_early=stops_early)

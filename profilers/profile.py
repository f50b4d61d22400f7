"""Profiling: choose plans, have them measured inside the running network, fit the latency table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from profilers.latency_table import LEAST_SHARE, Choice, LatencyTable, PlanMeasurement, TableUnit
from profilers.table_fit import fit_latency_table
from targets.errors import RuntimeMissingError
from targets.levels import Level

MeasurePlans = Callable[[Sequence[Choice], str], list[PlanMeasurement | None]]
"""Measures plans of a kind, relative to the dense network; None for one that failed."""

TRIES = 300
HOPE = 1.15
"""A table from the first plans that falls short of the request by more than this factor is not measured further."""

Propose = Callable[[LatencyTable, float, np.random.Generator], Choice]
"""A plan that a search would ask for: the table so far, a budget in seconds, a generator."""


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """How many plans of each kind are measured.

    Args:
        anchors: one level for every unit, over the whole range.
        broad: random plans over the whole range.
        near: random plans near the operating point.
        rounds: how often the table is fitted and plans that exploit its errors are measured.
        proposed: such plans a round.
    """

    anchors: int = 9
    broad: int = 15
    near: int = 12
    rounds: int = 3
    proposed: int = 8

    @classmethod
    def of(cls, total: int) -> "PlanCounts":
        """Counts in the default's proportions that come to about ``total``."""
        scale = total / cls().total
        return cls(
            max(3, round(9 * scale)), max(3, round(15 * scale)), max(2, round(12 * scale)), 3, max(1, round(8 * scale))
        )

    @property
    def total(self) -> int:
        """Plans in all."""
        return self.anchors + self.broad + self.near + self.rounds * self.proposed


def enough_plans(units: Sequence[TableUnit]) -> int:
    """Plans after which more of them improve the table no further: it has a curve for every group of units."""
    groups = {unit.group for unit in units if unit.prunable}
    return max(42, min(60, 3 * len(groups)))


def profile(
    units: Sequence[TableUnit],
    levels: Sequence[Level],
    dense_s: float,
    measure: MeasurePlans,
    propose: Propose,
    *,
    speedup: float,
    seed: int,
    host_id: str,
    target: Mapping[str, Any],
    counts: PlanCounts | None = None,
) -> LatencyTable:
    """Measure plans over the whole range, then near the operating point, then those that a search would choose.

    A dynamic program finds exactly the units that the table thinks are free (spdy-reference: the plan sold as 3x
    measures 2.2x). Measuring what it asks for, and fitting again, is what removes such errors.

    Args:
        dense_s: seconds of the dense network.
        speedup: the operating point. One that is far out of reach ends the profiling after the first plans.

    Raises:
        RuntimeMissingError: not one plan could be measured.
    """
    counts = counts or PlanCounts()
    rng = np.random.default_rng(seed)

    def fit(plans: Sequence[PlanMeasurement]) -> LatencyTable:
        return fit_latency_table(units, levels, dense_s, plans, host_id=host_id, target=target)

    def run(choices: Sequence[Choice], kind: str) -> list[PlanMeasurement]:
        return [plan for plan in measure(choices, kind) if plan is not None]

    measured = run(anchor_plans(units, levels, counts.anchors), "anchor")
    measured += run([random_plan(units, levels, rng) for _ in range(counts.broad)], "random")
    if not measured:
        raise RuntimeMissingError(
            "The runtime failed on every plan; see the errors above, or choose another --runtime."
        )
    table = fit(measured)
    if dense_s / cheapest(table) * HOPE < speedup:
        return table
    measured += run([plan_near(table, dense_s / speedup, rng) for _ in range(counts.near)], "random")
    for _ in range(counts.rounds):
        table = fit(measured)
        budgets = dense_s / speedup * rng.uniform(0.92, 1.08, counts.proposed)
        measured += run([propose(table, max(b, cheapest(table) * 1.01), rng) for b in budgets], "proposed")
    return fit(measured)


def anchor_plans(units: Sequence[TableUnit], levels: Sequence[Level], count: int) -> list[Choice]:
    """Plans with one level for every prunable unit, evenly over the levels; dense comes first."""
    positions = np.unique(np.linspace(0, len(levels) - 1, count).round().astype(int))
    return [uniform_plan(units, int(position)) for position in positions]


def uniform_plan(units: Sequence[TableUnit], position: int) -> Choice:
    """One level for every prunable unit, or the nearest that the unit has."""
    return tuple(unit.nearest_level(position) for unit in units)


def random_plan(units: Sequence[TableUnit], levels: Sequence[Level], rng: np.random.Generator) -> Choice:
    """A plan around a random common level, spread by a random amount, with a random share of dense units."""
    last = len(levels) - 1
    centre, spread = rng.uniform(1, last), rng.uniform(0, last / 4)
    dense_share = rng.choice([0.0, 0.1, 0.3], p=[0.5, 0.3, 0.2])
    drawn = np.clip(np.rint(rng.normal(centre, spread, len(units))), 1, last).astype(int)
    drawn[rng.random(len(units)) < dense_share] = 0
    return tuple(unit.nearest_level(int(level)) for unit, level in zip(units, drawn, strict=True))


def plan_near(table: LatencyTable, budget_s: float, rng: np.random.Generator, within: float = 0.12) -> Choice:
    """A random plan whose predicted latency is near ``budget_s``, or the nearest of `TRIES`."""
    best, best_distance = None, np.inf
    for _ in range(TRIES):
        plan = random_plan(table.units, table.levels, rng)
        distance = abs(table.predict(plan) / budget_s - 1)
        if distance < best_distance:
            best, best_distance = plan, distance
        if distance < within:
            break
    assert best is not None
    return best


def neighbours(table: LatencyTable, choice: Choice, count: int, rng: np.random.Generator) -> list[Choice]:
    """Plans that differ from ``choice`` by up to three levels in a third of the units."""
    last = len(table.levels) - 1
    plans = []
    for _ in range(count):
        moved = np.array(choice) + rng.integers(-3, 4, len(choice)) * (rng.random(len(choice)) < 1 / 3)
        near = np.clip(moved, 0, last)
        plans.append(tuple(unit.nearest_level(int(p)) for unit, p in zip(table.units, near, strict=True)))
    return plans


def fastest_known(table: LatencyTable) -> float:
    """The largest speedup that was measured or that the table knows a plan for."""
    return max(*(1 / plan.relative for plan in table.measurements), table.dense_s / cheapest(table))


def cheapest(table: LatencyTable) -> float:
    """Seconds of the fastest plan that the table knows."""
    costs = table.costs()
    return max(float(table.fixed_s + costs.min(axis=1).sum()), LEAST_SHARE * table.dense_s)

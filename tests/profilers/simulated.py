"""A network whose latency is known: what a latency table has to find out."""

from collections.abc import Sequence

import numpy as np

from profilers.latency_table import Choice, PlanMeasurement, TableUnit, count_borders
from targets.levels import sparsity_grid

LEVELS = sparsity_grid()
GROUPS = {"wide": (0.10, 0.13, 1.2), "middle": (0.06, 0.08, 1.0), "narrow": (0.04, 0.05, 0.8)}
"""Group → dense share, sparse share a unit of density, exponent of the curve."""
FIXED, BORDER = 0.12, 0.004


def units() -> tuple[TableUnit, ...]:
    """First and last unit stay dense; twelve prunable ones between them."""
    inner = [TableUnit(f"{group}{i}", group, GROUPS[group][0], True) for group in GROUPS for i in range(4)]
    return (TableUnit("first", "first", 0.02, False), *inner, TableUnit("last", "last", 0.02, False))


def relative(choice: Choice) -> float:
    """The plan's latency as a fraction of the dense network's."""
    return _time(choice) / _time((0,) * len(choice))


def _time(choice: Choice) -> float:
    total = FIXED + BORDER * count_borders(units(), LEVELS, choice)
    for unit, index in zip(units(), choice, strict=True):
        if unit.prunable:
            dense, sparse, power = GROUPS[unit.group]
            total += dense if index == 0 else 0.002 + sparse * LEVELS[index].density ** power
    return total


class SimulatedBench:
    """Measures plans with noise; remembers how many."""

    def __init__(self, noise: float, seed: int = 0) -> None:
        self._noise, self._rng, self.measured = noise, np.random.default_rng(seed), 0

    def __call__(self, choices: Sequence[Choice], kind: str) -> list[PlanMeasurement | None]:
        self.measured += len(choices)
        return [
            PlanMeasurement(choice, relative(choice) * float(np.exp(self._rng.normal(0, self._noise))), 1.0, kind)
            for choice in choices
        ]

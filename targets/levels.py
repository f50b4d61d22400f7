"""Levels: the ways to compress one unit, as data that runtimes, tables and databases share."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, order=True)
class Level:
    """One way to compress one unit.

    Args:
        family: ``dense`` or a family that a runtime declares, such as ``unstructured``.
        amount: fraction removed, 0 <= amount < 1; for ``unstructured`` the sparsity.
        precision: of the weights and the arithmetic, such as ``fp32``.
    """

    family: str = "dense"
    amount: float = 0.0
    precision: str = "fp32"

    @property
    def density(self) -> float:
        """Fraction of the weights that stays."""
        return 1.0 - self.amount

    @property
    def key(self) -> str:
        """Name in files: ``dense`` or ``unstructured-0.6415``, with ``-int8`` and the like behind it."""
        name = "dense" if self.family == "dense" else f"{self.family}-{self.amount:.4f}"
        return name if self.precision == "fp32" else f"{name}-{self.precision}"

    @classmethod
    def parse(cls, key: str) -> "Level":
        """The level that ``key`` names.

        Raises:
            ValueError: ``key`` is not of the form that `Level.key` writes.
        """
        family, *rest = key.split("-")
        if family == "dense" and len(rest) <= 1:
            return cls("dense", 0.0, *rest)
        if family == "dense" or not 1 <= len(rest) <= 2:
            raise ValueError(f"not a level: {key!r}")
        return cls(family, float(rest[0]), *rest[1:])


DENSE = Level()


def sparsity_grid(first: float = 0.40, last: float = 0.99, count: int = 41) -> tuple[Level, ...]:
    """Dense, then ``count`` unstructured levels whose densities shrink by one factor from level to level.

    The defaults are SPDY's grid: 41 levels from 40% to 99%, density x0.9027 a step. Amounts are rounded to
    the four decimals that `Level.key` keeps, so that a level survives being written and read.
    """
    densities = np.geomspace(1 - first, 1 - last, count)
    return (DENSE, *(Level("unstructured", round(float(1 - d), 4)) for d in densities))

"""What a family of levels is: the one place where it says which levels units have and what they become.

A family changes weights. A precision changes how they are stored and multiplied, and combines with every family that
it names; `pipeline.families.int8` is the one there is.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pipeline.compression.hessians import Matrix
from pipeline.graph import ExportedGraph
from pipeline.models.base import Unit
from targets.levels import Level


class Family(Protocol):
    """One way to take weights away."""

    name: str

    def levels(self, unit: Unit, count: int) -> tuple[Level, ...]:
        """The fp32 levels that a unit has, the gentlest first; none where the family does not know such units.

        Args:
            count: levels at most, as ``--levels`` says.
        """

    def layer_level(self, unit: Unit, layer: str, level: Level) -> Level:
        """What a unit's level asks of one of its layers."""

    def compress(
        self,
        unit: Unit,
        layer: Unit,
        hessian: Matrix,
        dense: Matrix,
        levels: Sequence[Level],
        criterion: str,
        solver: str,
    ) -> Iterator[Matrix]:
        """Weights [rows, d] of a layer at each of its levels, zeros where something is gone.

        Args:
            hessian: of the layer's inputs, [d, d] or [groups, d, d].
            dense: [rows, d] the original weights.
            levels: of this family.
        """

    def finish(self, graph: ExportedGraph, unit: Unit, level: Level) -> None:
        """Make a level's zeros pay in an exported graph, in place; where there are no zeros yet, the smallest go."""

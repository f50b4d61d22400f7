"""What a family of levels is: the one place where it says which levels units have and what they become.

A family changes weights. A precision changes how they are stored and multiplied, and combines with every family that
it names; `pipeline.families.int8` is the one there is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from calibration.statistics import LayerStatistics
from pipeline.compression.hessians import Matrix
from pipeline.exporting.graph import ExportedGraph
from pipeline.families.int8 import LARGEST_WEIGHT
from pipeline.models.base import Unit
from targets.levels import Level


@dataclass(frozen=True, slots=True)
class Methods:
    """How levels are made, by the names of flags.

    Args:
        criterion: which single weights go.
        channel_criterion: which channels go.
        solver: what the weights that stay become.
        largest_weight: steps of a weight in int8, fewer where the CPU's sums overflow.
    """

    criterion: str = "obs"
    channel_criterion: str = "obs"
    solver: str = "auto"
    largest_weight: int = LARGEST_WEIGHT

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, for the key of what they make."""
        return (self.criterion, self.channel_criterion, self.solver, str(self.largest_weight))


class Family(Protocol):
    """One way to take weights away."""

    name: str
    is_structured: bool
    """Whether whole columns go, which the plan has chosen; training may choose anew which single weights go."""

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
        statistics: LayerStatistics,
        dense: Matrix,
        levels: Sequence[Level],
        methods: Methods,
    ) -> Iterator[Matrix]:
        """Weights [rows, d] of a layer at each of its levels, zeros where something is gone.

        Args:
            statistics: of the layer's inputs.
            dense: [rows, d] the original weights.
            levels: of this family.
        """

    def finish(self, graph: ExportedGraph, unit: Unit, level: Level) -> None:
        """Make a level's zeros pay in an exported graph, in place; where there are no zeros yet, the smallest go."""

"""Unstructured sparsity: any weight may go; a runtime with sparse kernels gains from the zeros as they lie."""

from collections.abc import Iterator, Sequence

from calibration.statistics import LayerStatistics
from pipeline.compression.criteria import CRITERIA
from pipeline.compression.hessians import Matrix
from pipeline.compression.solvers import SOLVERS
from pipeline.exporting.graph import ExportedGraph
from pipeline.families.base import Methods
from pipeline.models.base import Unit
from targets.levels import DENSE, Level, sparsity_grid


class Unstructured:
    """SPDY's levels; implements `pipeline.families.base.Family`."""

    name = "unstructured"
    is_structured = False

    def levels(self, unit: Unit, count: int) -> tuple[Level, ...]:
        """The same grid for every prunable unit."""
        return sparsity_grid(count=count - 1)[1:] if unit.prunable else ()

    def layer_level(self, unit: Unit, layer: str, level: Level) -> Level:  # noqa: ARG002
        """The unit's level."""
        return level

    def compress(
        self,
        unit: Unit,  # noqa: ARG002
        layer: Unit,  # noqa: ARG002
        statistics: LayerStatistics,
        dense: Matrix,
        levels: Sequence[Level],
        methods: Methods,
    ) -> Iterator[Matrix]:
        """By the criterion's ranking and the solver."""
        levels = [level for level in levels if level != DENSE]
        yield from SOLVERS[methods.solver](
            statistics.hessian, dense, [level.amount for level in levels], CRITERIA[methods.criterion]
        )

    def finish(self, graph: ExportedGraph, unit: Unit, level: Level) -> None:
        """Nothing: zeros stay where they are."""

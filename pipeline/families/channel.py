"""Channels: widths inside blocks shrink, so that every layer of the block is smaller on any runtime.

Whole inputs of the layer that reads a width go; the layers that write it then need not compute them. Zeroing the
reader's columns gives the same function as removing the channels, so that databases and training keep full shapes,
and only exported graphs are really smaller.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.compression.hessians import Matrix, invertible
from pipeline.graph import ExportedGraph
from pipeline.models.base import Cut, Unit
from targets.levels import Level

MOST_LEVELS = 12
"""Levels of a width at most; cost is smooth in the width, so that finer steps buy little."""
SWEEPS = 128
"""Steps in which the channels of a width are removed at most; several go in one step where there are more."""


class Channel:
    """Widths in steps that suit the vector width; implements `pipeline.families.base.Family`."""

    name = "channel"

    def levels(self, unit: Unit, count: int) -> tuple[Level, ...]:
        """Amounts that leave a multiple of the step, and at least one step, in every width of the unit."""
        if not unit.cuts:
            return ()
        narrowest = min(unit.cuts, key=lambda cut: cut.count // cut.step)
        widths = range(narrowest.step, narrowest.count, narrowest.step)
        most = min(count - 1, MOST_LEVELS, len(widths))
        chosen = sorted({round(position) for position in np.linspace(0, len(widths) - 1, most)}, reverse=True)
        amounts = [round(1 - widths[position] / narrowest.count, 4) for position in chosen]
        return tuple(Level(self.name, amount) for amount in amounts)

    def layer_level(self, unit: Unit, layer: str, level: Level) -> Level:
        """The readers' inputs go; a layer that only writes keeps the weights that nobody reads."""
        return level if any(cut.consumer == layer for cut in unit.cuts) else Level(precision=level.precision)

    def compress(
        self,
        unit: Unit,
        layer: Unit,
        hessian: Matrix,
        dense: Matrix,
        levels: Sequence[Level],
        criterion: str,
        solver: str,  # noqa: ARG002 - least squares is the only one
    ) -> Iterator[Matrix]:
        """The channels that cost least go, and the others take over by least squares."""
        cut = next(cut for cut in unit.cuts if cut.consumer == layer.name)
        inputs = inputs_of(cut, dense.shape[1])
        fewest = min(kept_count(cut, level.amount) for level in levels)
        gone = removal_order(hessian, dense, inputs, len(inputs) - fewest, criterion)
        solvable = invertible(hessian)
        for level in levels:
            stays = np.setdiff1d(np.arange(len(inputs)), gone[: len(inputs) - kept_count(cut, level.amount)])
            yield least_squares(solvable, dense, np.sort(inputs[stays].ravel()))

    def finish(self, graph: ExportedGraph, unit: Unit, level: Level) -> None:
        """Slice the weights and biases of the block's layers."""
        for cut in unit.cuts:
            weight = graph.weight(cut.consumer)
            flat = weight.reshape(*weight.shape[:2], -1)
            strength = np.square(flat).sum(axis=(0, 2)).reshape(cut.count, cut.size).sum(axis=1)
            stays = np.sort(np.argsort(-strength, kind="stable")[: kept_count(cut, level.amount)])
            channels = (stays[:, None] * cut.size + np.arange(cut.size)).ravel()
            graph.set_weight(cut.consumer, weight[:, channels])
            for producer in cut.producers:
                graph.keep_outputs(producer, channels)


def kept_count(cut: Cut, amount: float) -> int:
    """Groups of channels that stay: a multiple of the step, at least one step."""
    return cut.step * max(1, round(cut.count * (1 - amount) / cut.step))


def inputs_of(cut: Cut, columns: int) -> NDArray[np.int64]:
    """[count, columns a group] columns of the reader's weight matrix that belong to every group of channels."""
    return np.arange(columns).reshape(cut.count, -1)


def removal_order(
    hessian: Matrix, dense: Matrix, inputs: NDArray[np.int64], count: int, criterion: str
) -> NDArray[np.int64]:
    """The first ``count`` groups of columns to go.

    ``obs`` removes what costs least after the others have adapted, and updates the rest: for columns G of the weight W
    the cost is ½ tr(W_G [H⁻¹]_GG⁻¹ W_Gᵀ) (Hassibi & Stork 1993; for structures Kurtic et al. 2023, ZipLM, equation 3).
    ``magnitude`` removes the groups whose weights have the smallest sum of squares.

    Args:
        hessian: [d, d].
        dense: [rows, d].
        inputs: [groups, columns a group].
        count: groups to remove.
        criterion: ``obs`` or ``magnitude``.
    """
    if criterion == "magnitude":
        return np.argsort(np.square(dense[:, inputs]).sum(axis=(0, 2)), kind="stable")[:count]
    inverse, weight = np.linalg.inv(invertible(hessian)), dense.copy()
    left, gone = np.arange(len(inputs)), np.empty(0, np.int64)
    while len(gone) < count:
        columns = inputs[left]
        blocks = inverse[columns[:, :, None], columns[:, None, :]]
        theirs = weight[:, columns].transpose(1, 2, 0)
        costs = np.einsum("gcr,gcr->g", theirs, np.linalg.solve(blocks, theirs))
        step = min(count - len(gone), -(-len(inputs) // SWEEPS))
        worst = np.argsort(costs, kind="stable")[:step]
        out = columns[worst].ravel()
        update = np.linalg.solve(inverse[np.ix_(out, out)], inverse[out])
        weight -= weight[:, out] @ update
        inverse -= inverse[:, out] @ update
        gone, left = np.append(gone, left[worst]), np.delete(left, worst)
    return gone


def least_squares(hessian: Matrix, dense: Matrix, kept: NDArray[np.int64]) -> Matrix:
    """The weights [rows, d] that only read the ``kept`` columns and whose reconstruction error is the lowest.

    Args:
        hessian: [d, d], invertible.
    """
    weight = np.zeros_like(dense)
    weight[:, kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ dense.T).T
    return weight

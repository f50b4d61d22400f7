"""Channels: widths inside blocks shrink, so that every layer of the block is smaller on any runtime.

Whole inputs of the layer that reads a width go; the layers that write it then need not compute them. Zeroing the
reader's columns gives the same function as removing the channels, so that databases and training keep full shapes,
and only exported graphs are really smaller.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from calibration.statistics import LayerStatistics
from pipeline.compression.hessians import Matrix, invertible
from pipeline.exporting.graph import ExportedGraph
from pipeline.families.base import Methods
from pipeline.models.base import Cut, Unit
from targets.levels import Level

MOST_LEVELS = 12
"""Levels of a width at most; cost is smooth in the width, so that finer steps buy little."""
Groups = NDArray[np.int64]
"""[groups, columns a group] columns of the reader's weight matrix that belong to every group of channels."""
Chosen = NDArray[np.int64]
"""Numbers of the groups that go."""
SENSITIVITY_BYTES = 64 * 2**20
"""What groups add to outputs, worked on at a time."""
SWEEPS = 128
"""Steps in which the channels of a width are removed at most; several go in one step where there are more."""


class Channel:
    """Widths in steps that suit the vector width; implements `pipeline.families.base.Family`."""

    name = "channel"
    is_structured = True

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
        statistics: LayerStatistics,
        dense: Matrix,
        levels: Sequence[Level],
        methods: Methods,
    ) -> Iterator[Matrix]:
        """The channels that the criterion rates lowest go, and the others take over by least squares."""
        cut = next(cut for cut in unit.cuts if cut.consumer == layer.name)
        inputs = inputs_of(cut, dense.shape[1])
        counts = [len(inputs) - kept_count(cut, level.amount) for level in levels]
        solvable = invertible(statistics.hessian)
        for gone in CHANNEL_CRITERIA[methods.channel_criterion](statistics, dense, inputs, counts):
            stays = np.setdiff1d(np.arange(len(inputs)), gone)
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


def inputs_of(cut: Cut, columns: int) -> Groups:
    """The groups of a cut whose reader's weight matrix has so many columns."""
    return np.arange(columns).reshape(cut.count, -1)


def by_obs(hessian: Matrix, dense: Matrix, inputs: Groups, counts: Sequence[int]) -> list[Chosen]:
    """What costs least after the others have adapted goes, step by step, and the rest is updated.

    For columns G of the weight W the cost is ½ tr(W_G [H⁻¹]_GG⁻¹ W_Gᵀ) (Hassibi & Stork 1993; for structures Kurtic et
    al. 2023, ZipLM, equation 3).

    Args:
        hessian: [d, d].
        dense: [rows, d].
        inputs: [groups, columns a group].
        counts: groups to remove at each level.
    """
    inverse, weight = np.linalg.inv(invertible(hessian)), dense.copy()
    left, gone = np.arange(len(inputs)), np.empty(0, np.int64)
    while len(gone) < max(counts):
        columns = inputs[left]
        blocks = inverse[columns[:, :, None], columns[:, None, :]]
        theirs = weight[:, columns].transpose(1, 2, 0)
        costs = np.einsum("gcr,gcr->g", theirs, np.linalg.solve(blocks, theirs))
        step = min(max(counts) - len(gone), -(-len(inputs) // SWEEPS))
        worst = np.argsort(costs, kind="stable")[:step]
        out = columns[worst].ravel()
        update = np.linalg.solve(inverse[np.ix_(out, out)], inverse[out])
        weight -= weight[:, out] @ update
        inverse -= inverse[:, out] @ update
        gone, left = np.append(gone, left[worst]), np.delete(left, worst)
    return [gone[:count] for count in counts]


def by_norm(power: int, dense: Matrix, inputs: Groups, counts: Sequence[int]) -> list[Chosen]:
    """Groups whose weights have the smallest sum of magnitudes (Li et al. 2016) or of squares (He et al. 2018) go."""
    strength = (np.abs(dense[:, inputs]) ** power).sum(axis=(0, 2))
    return [np.argsort(strength, kind="stable")[:count] for count in counts]


def by_leverage(hessian: Matrix, inputs: Groups, counts: Sequence[int]) -> list[Chosen]:
    """Groups with the smallest leverage on the inputs' leading directions go, whatever their weights.

    With the k leading eigenvectors V of H, as many as columns are kept, a column's leverage is ψ = ‖V[column]‖²; all
    of them sum to k (column subset selection; Hou et al. 2022, CHEX, section 3.1). Other than by cost, fewer channels
    need not be a part of more.
    """
    vectors = np.linalg.eigh(hessian)[1]
    kept_columns = [(len(inputs) - count) * inputs.shape[1] for count in counts]
    rated = [leverages(vectors, columns)[inputs].sum(axis=1) for columns in kept_columns]
    return [np.argsort(leverage, kind="stable")[:count] for leverage, count in zip(rated, counts, strict=True)]


def leverages(vectors: Matrix, rank: int) -> NDArray[np.float64]:
    """[d] squared length of every row of the last ``rank`` eigenvectors [d, d], those of the largest eigenvalues."""
    found: NDArray[np.float64] = np.square(vectors[:, vectors.shape[1] - rank :]).sum(axis=1)
    return found


def by_sensitivity(columns: Matrix, dense: Matrix, inputs: Groups, counts: Sequence[int]) -> list[Chosen]:
    """Groups that never make up much of any output go.

    Where a group adds g_j to an output, its share is g_j over the sum of all groups' that have its sign; its
    sensitivity the largest share over all outputs and inputs seen (provable filter pruning; Liebenwein et al. 2020).

    Args:
        columns: [n, d] inputs of the layer.
    """
    order = np.argsort(sensitivities(columns, dense, inputs), kind="stable")
    return [order[:count] for count in counts]


def sensitivities(columns: Matrix, dense: Matrix, inputs: Groups) -> NDArray[np.float64]:
    """[groups] the largest share of an output, of one sign, that every group ever makes up."""
    weights = dense[:, inputs]
    largest = np.zeros(len(inputs))
    step = max(1, SENSITIVITY_BYTES // (8 * len(dense) * len(inputs)))
    for start in range(0, len(columns), step):
        added = np.einsum("ngc,rgc->nrg", columns[start : start + step][:, inputs], weights, optimize=True)
        for signed in (np.maximum(added, 0), np.maximum(-added, 0)):
            sums = signed.sum(axis=2, keepdims=True)
            shares = np.divide(signed, sums, out=np.zeros_like(signed), where=sums > 0)
            largest = np.maximum(largest, shares.max(axis=(0, 1)))
    return largest


def _seen(statistics: LayerStatistics) -> Matrix:
    if statistics.columns is None:
        raise ValueError("sensitivities need columns of the layer's inputs: collect statistics with columns_a_batch")
    return statistics.columns.astype(np.float64)


CHANNEL_CRITERIA: dict[str, Callable[[LayerStatistics, Matrix, Groups, Sequence[int]], list[Chosen]]] = {
    "obs": lambda seen, dense, inputs, counts: by_obs(seen.hessian, dense, inputs, counts),
    "l1": lambda _, dense, inputs, counts: by_norm(1, dense, inputs, counts),
    "l2": lambda _, dense, inputs, counts: by_norm(2, dense, inputs, counts),
    "leverage": lambda seen, _, inputs, counts: by_leverage(seen.hessian, inputs, counts),
    "pfp": lambda seen, dense, inputs, counts: by_sensitivity(_seen(seen), dense, inputs, counts),
}
"""Name → the groups that go at each level, from statistics, dense weights, the groups' columns, and how many go."""
COLUMNS_A_BATCH = {"pfp": 16}
"""Criterion → columns of the layers' inputs that it wants to see of every batch; none where it is not named."""


def least_squares(hessian: Matrix, dense: Matrix, kept: NDArray[np.int64]) -> Matrix:
    """The weights [rows, d] that only read the ``kept`` columns and whose reconstruction error is the lowest.

    Args:
        hessian: [d, d], invertible.
    """
    weight = np.zeros_like(dense)
    weight[:, kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ dense.T).T
    return weight

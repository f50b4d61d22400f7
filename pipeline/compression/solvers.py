"""Solvers: what the weights that stay become."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.compression.criteria import CRITERIA, Criterion, Ranking, kept_count, mask_of
from pipeline.compression.hessians import Mask, Matrix, by_group, invertible
from pipeline.compression.parallel import over_chunks

CHUNK_BYTES = 8 * 2**20
"""Linear systems of a chunk of rows, small enough to stay in a CPU's cache."""
AFFORDABLE = 5e11
"""Largest rows · d³ for which every level is solved exactly: about half a minute on two cores."""

SWEEP_DAMPING = 0.1
"""Of the mean diagonal: a sweep cannot take back what it pushes onto later columns, and errs less if it pushes less."""
BLOCK = 128
"""Columns whose mask is chosen at a time in a sweep."""

Groups = Sequence[tuple[Tensor, slice]]
LevelSolver = Callable[[Matrix, Matrix, Sequence[float], Criterion], Iterator[Matrix]]
"""From Hessian, dense weights [rows, d], ascending sparsities and a criterion to each level's weights [rows, d]."""


def least_squares(hessian: Matrix, weight: Matrix, mask: Mask) -> Matrix:
    """The weights [rows, d] with zeros outside ``mask`` whose reconstruction error is the lowest there is.

    Each row's kept weights S solve H_SS ŵ_S = H_S: w. A singular Hessian is damped, see `invertible`.

    Args:
        hessian: [d, d] or [groups, d, d].
        weight: [rows, d] the dense weights.
        mask: [rows, d] the weights that stay.
    """
    return _refit(_invertible_groups(hessian, len(weight)), weight, mask)


def obs_levels(hessian: Matrix, weight: Matrix, sparsities: Sequence[float]) -> Iterator[tuple[Matrix, Mask]]:
    """Weights and mask [rows, d] of every level: chosen by Optimal Brain Surgeon, solved by least squares.

    Args:
        hessian: [d, d] or [groups, d, d].
        weight: [rows, d] the dense weights.
        sparsities: of the levels.
    """
    ranking = CRITERIA["obs"].ranking(hessian, weight)
    for sparsity, level in zip(sparsities, _nested_levels(hessian, weight, sparsities, ranking), strict=True):
        yield level, mask_of(ranking, sparsity)


def blocked_obs(
    hessian: Matrix, weight: Matrix, sparsity: float, block: int = BLOCK, criterion: Criterion = CRITERIA["obs"]
) -> tuple[Matrix, Mask]:
    """Weights and mask [rows, d] of one level in one sweep over the columns, O(d³ + rows · d²).

    Source: Frantar & Alistarh 2023, SparseGPT, algorithm 1.

    Args:
        hessian: [d, d] or [groups, d, d].
        weight: [rows, d] the dense weights.
        sparsity: of the level; every block of columns gets it.
        block: columns whose mask is chosen at a time.
        criterion: whose saliency chooses it.
    """
    factors = _inverse_factors(_invertible_groups(hessian, len(weight)))
    return _sweep_groups(factors, weight, sparsity, block, criterion)


def exact_levels(
    hessian: Matrix, weight: Matrix, sparsities: Sequence[float], criterion: Criterion
) -> Iterator[Matrix]:
    """Every level by the criterion's ranking and least squares."""
    return _nested_levels(hessian, weight, sparsities, criterion.ranking(hessian, weight))


def blocked_levels(
    hessian: Matrix, weight: Matrix, sparsities: Sequence[float], criterion: Criterion
) -> Iterator[Matrix]:
    """Every level by `blocked_obs` from one factorisation, refitted by least squares where that is affordable."""
    groups = _invertible_groups(hessian, len(weight))
    factors = _inverse_factors(groups)
    for sparsity in sparsities:
        level, mask = _sweep_groups(factors, weight, sparsity, BLOCK, criterion)
        yield _refit(groups, weight, mask) if _affordable(mask) else level


def fitting_levels(
    hessian: Matrix, weight: Matrix, sparsities: Sequence[float], criterion: Criterion
) -> Iterator[Matrix]:
    """Every level exactly where the layer's size allows it, else blocked."""
    solver = exact_levels if _affordable(np.ones(weight.shape, bool)) else blocked_levels
    return solver(hessian, weight, sparsities, criterion)


SOLVERS: dict[str, LevelSolver] = {"auto": fitting_levels, "least-squares": exact_levels, "blocked": blocked_levels}


def _nested_levels(hessian: Matrix, weight: Matrix, sparsities: Sequence[float], ranking: Ranking) -> Iterator[Matrix]:
    """Least squares at every level of one ranking, whose masks are nested, by one factorisation a row.

    With a row's weights in the order in which they stay longest, what stays at a level is a prefix. The Cholesky
    factor of a leading block is the leading block of the factor, and so are the forward substitution's first entries:
    every level costs one back substitution.
    """
    counts = torch.stack([torch.from_numpy(mask_of(ranking, sparsity).sum(axis=1)) for sparsity in sparsities])
    order = torch.from_numpy(np.argsort(-ranking, axis=1))
    values: list[list[tuple[Tensor, Tensor]]] = [[] for _ in sparsities]  # by level: rows, their leading weights
    for own, owned in _invertible_groups(hessian, len(weight)):
        targets = torch.from_numpy(weight[owned]) @ own
        first = owned.start

        def work(rows: Tensor, own: Tensor = own, targets: Tensor = targets, first: int = first) -> None:
            stay = counts[:, first + rows]
            for level, solved in enumerate(_prefixes(own, targets[rows], order[first + rows], stay)):
                values[level].append((first + rows, solved))

        longest = counts[:, owned].amax(dim=0)
        by_length = torch.argsort(longest, descending=True, stable=True)
        over_chunks(work, _chunks(by_length[longest[by_length] > 0], longest))
    for parts in values:
        level = torch.zeros(weight.shape, dtype=torch.float64)
        for rows, solved in parts:
            level[rows] = level[rows].scatter(1, order[rows, : solved.shape[1]], solved)
        yield level.numpy()


def _prefixes(hessian: Tensor, targets: Tensor, order: Tensor, counts: Tensor) -> Iterator[Tensor]:
    """Weights [rows, most at the level] of the first ``counts`` [levels, rows] inputs in the order [rows, d]."""
    order = order[:, : int(counts.max())]
    system = hessian.index_select(0, order.ravel()).reshape(*order.shape, -1)
    system = system.gather(2, order[:, None, :].expand(-1, order.shape[1], -1))
    factor = torch.linalg.cholesky(system)
    forward = torch.linalg.solve_triangular(factor, targets.gather(1, order)[:, :, None], upper=False)
    for count in counts:
        most = int(count.max())
        # zeros at the end of the right-hand side stay zeros: rows with fewer weights need no system of their own
        wanted = forward[:, :most] * (torch.arange(most) < count[:, None])[:, :, None]
        yield torch.linalg.solve_triangular(factor[:, :most, :most].mT, wanted, upper=True)[:, :, 0]


def _affordable(mask: Mask) -> bool:
    """Whether eliminating or solving the kept weights exactly takes no more than AFFORDABLE steps."""
    return float(np.sum(mask.sum(axis=1).astype(float) ** 3)) <= AFFORDABLE


def _invertible_groups(hessian: Matrix, rows: int) -> Groups:
    return [(torch.from_numpy(invertible(own)), owned) for own, owned in by_group(hessian, rows)]


def _refit(groups: Groups, weight: Matrix, mask: Mask) -> Matrix:
    """`least_squares` with Hessians that are known to be invertible."""
    solved = np.zeros_like(weight)
    for hessian, rows in groups:
        solved[rows] = _least_squares(hessian, torch.from_numpy(weight[rows]), torch.from_numpy(mask[rows])).numpy()
    return solved


def _least_squares(hessian: Tensor, weight: Tensor, kept: Tensor) -> Tensor:
    """Least squares of rows that share a Hessian; rows with like numbers of weights are solved together."""
    counts = kept.sum(dim=1)
    targets = weight @ hessian
    solved = torch.zeros_like(targets)
    order = torch.argsort(counts, descending=True, stable=True)

    def work(rows: Tensor) -> None:
        solved[rows] = _solve(hessian, targets[rows], kept[rows], int(counts[rows[0]]))

    over_chunks(work, _chunks(order[counts[order] > 0], counts))
    return solved


def _chunks(order: Tensor, counts: Tensor) -> Iterator[Tensor]:
    """Runs of rows whose systems take CHUNK_BYTES together; ``order`` is by descending count."""
    start = 0
    while start < len(order):
        rows = order[start : start + max(1, CHUNK_BYTES // (8 * int(counts[order[start]]) ** 2))]
        yield rows
        start += len(rows)


def _solve(hessian: Tensor, targets: Tensor, kept: Tensor, largest: int) -> Tensor:
    """[rows, d] solutions of H_SS ŵ_S = target_S; rows with fewer than ``largest`` weights are padded by ŵ = 0."""
    columns = torch.argsort(~kept, dim=1, stable=True)[:, :largest]
    real = kept.gather(1, columns)
    system = hessian[columns[:, :, None], columns[:, None, :]]
    system *= (real[:, :, None] & real[:, None, :]).double()
    system.diagonal(dim1=1, dim2=2).add_(~real)
    wanted = targets.gather(1, columns) * real
    values = torch.cholesky_solve(wanted[:, :, None], torch.linalg.cholesky(system))[:, :, 0]
    return torch.zeros_like(targets).scatter_(1, columns, values)


def _inverse_factors(groups: Groups) -> list[tuple[Matrix, slice]]:
    """Upper Cholesky factors U of the damped H⁻¹ = UᵀU: row i says what the columns after i owe to a change of i."""
    factors = []
    for hessian, rows in groups:
        damping = SWEEP_DAMPING * hessian.diagonal().mean() * torch.eye(len(hessian), dtype=torch.float64)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian + damping))
        factors.append((torch.linalg.cholesky(inverse, upper=True).numpy(), rows))
    return factors


def _sweep_groups(
    factors: Sequence[tuple[Matrix, slice]], weight: Matrix, sparsity: float, block: int, criterion: Criterion
) -> tuple[Matrix, Mask]:
    level, mask = np.empty_like(weight), np.empty(weight.shape, bool)
    for factor, rows in factors:
        level[rows], mask[rows] = _sweep(factor, weight[rows], sparsity, block, criterion)
    return level, mask


def _sweep(factor: Matrix, weight: Matrix, sparsity: float, block: int, criterion: Criterion) -> tuple[Matrix, Mask]:
    """SparseGPT's sweep over the columns of rows that share a Hessian."""
    rows, size = weight.shape
    current, mask = weight.copy(), np.ones(weight.shape, bool)
    dropped = weight.size - kept_count(weight.size, sparsity)
    for start in range(0, size, block):
        end = min(start + block, size)
        here, own = current[:, start:end], factor[start:end, start:end]
        count = round(dropped * end / size) - round(dropped * start / size)
        saliency = criterion.saliency(here, np.diag(own))
        gone = np.zeros(here.size, bool)
        gone[np.argsort(saliency, axis=None, kind="stable")[:count]] = True
        mask[:, start:end] = ~gone.reshape(rows, -1)
        debts = np.empty_like(here)
        for column in range(end - start):
            debts[:, column] = here[:, column] * ~mask[:, start + column] / own[column, column]
            here[:, column:] -= debts[:, column, None] * own[column, column:]
        here *= mask[:, start:end]
        current[:, end:] -= debts @ factor[start:end, end:]
    return current, mask

"""Optimal Brain Surgeon on every row of a layer at once, down to the last weight."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.compression.hessians import Matrix, invertible
from pipeline.compression.parallel import over_chunks

CHUNK_BYTES = 12 * 2**20
"""Inverse Hessians of a chunk of rows, small enough to stay in a CPU's cache."""
STEP = 1 / 64
"""Part of a row's remaining weights that goes at a time; one by one below 1 / STEP weights."""
COMPACT = 0.8
"""Arrays are packed once this part of them is left."""


def eliminate(hessian: Matrix, weight: Matrix) -> tuple[Matrix, Matrix]:
    """Remove every row's weights in the order of least loss, the remaining ones always adjusted optimally.

    The loss of weight q is w_q² / (2 [H_S⁻¹]_qq over the set S that remains, and the others change by
    -w_q H_S⁻¹ e_q / [H_S⁻¹]_qq (Hassibi & Stork 1993). A few weights go at a time: they are chosen by their losses one
    by one, but charged and compensated together, exactly: with A = LLᵀ their part of H_S⁻¹ and z = L⁻¹w, z_i²/2 is
    the loss of the i-th after those before it.

    Args:
        hessian: [d, d].
        weight: [rows, d].

    Returns:
        The loss at which each weight goes, running maximum over its row [rows, d], and its turn in its row [rows, d].
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(torch.from_numpy(invertible(hessian))))
    losses, turns = torch.empty(weight.shape, dtype=torch.float64), torch.empty(weight.shape, dtype=torch.float64)
    dense = torch.from_numpy(weight)

    def work(rows: Tensor) -> None:
        losses[rows], turns[rows] = _eliminate_rows(inverse, dense[rows])

    over_chunks(work, torch.split(torch.arange(len(weight)), max(1, CHUNK_BYTES // (8 * len(hessian) ** 2))))
    return losses.numpy(), turns.numpy()


@dataclass(slots=True)
class _Remaining:
    """What is left of a chunk of rows; all rows have lost the same number of weights.

    Args:
        inverse: [rows, s, s] H_S⁻¹ of each row; zero where a weight has gone.
        weight: [rows, s] current values.
        columns: [rows, s] where each stood in the layer.
        alive: [rows, s] False for weights that have gone since the last packing.
    """

    inverse: Tensor
    weight: Tensor
    columns: Tensor
    alive: Tensor

    def cheapest(self, count: int) -> Tensor:
        """[rows, count] positions of each row's least losses, in ascending order."""
        losses = self.weight.square() / self.inverse.diagonal(dim1=1, dim2=2)
        return torch.topk(losses.masked_fill_(~self.alive, torch.inf), count, largest=False).indices

    def remove(self, chosen: Tensor) -> Tensor:
        """Take the chosen weights out, adjust the others, and return the losses [rows, count]."""
        rows, count = chosen.shape
        columns = self.inverse.gather(2, chosen[:, None, :].expand(rows, self.weight.shape[1], count))
        among = columns.gather(1, chosen[:, :, None].expand(rows, count, count))
        factor = torch.linalg.cholesky(among)
        z = torch.linalg.solve_triangular(factor, self.weight.gather(1, chosen)[:, :, None], upper=False)
        update = torch.linalg.solve_triangular(factor, columns.transpose(1, 2), upper=False)
        self.weight -= (update.transpose(1, 2) @ z)[:, :, 0]
        self.inverse.baddbmm_(update.transpose(1, 2), update, alpha=-1)
        self.alive.scatter_(1, chosen, False)
        losses: Tensor = z[:, :, 0].square() / 2
        return losses

    def packed(self, left: int) -> "_Remaining":
        """Without the weights that have gone; ``left`` of each row remain."""
        rows, size = self.weight.shape
        keep = self.alive.nonzero()[:, 1].reshape(rows, left)
        some_rows = self.inverse.gather(1, keep[:, :, None].expand(rows, left, size))
        inverse = some_rows.gather(2, keep[:, None, :].expand(rows, left, left))
        return _Remaining(inverse, self.weight.gather(1, keep), self.columns.gather(1, keep), torch.ones_like(keep) > 0)


def _eliminate_rows(inverse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and turns [rows, d] of a chunk of rows."""
    rows, size = weight.shape
    losses, turns = torch.empty_like(weight), torch.empty_like(weight)
    columns = torch.arange(size).expand(rows, size)
    remaining = _Remaining(inverse.repeat(rows, 1, 1), weight.clone(), columns, torch.ones_like(weight) > 0)
    dearest = torch.zeros(rows, 1, dtype=torch.float64)
    done = 0
    while done < size:
        count = max(1, int((size - done) * STEP))
        chosen = remaining.cheapest(count)
        places = remaining.columns.gather(1, chosen)
        paid = torch.cummax(torch.cat([dearest, remaining.remove(chosen)], dim=1), dim=1).values[:, 1:]
        losses.scatter_(1, places, paid)
        turns.scatter_(1, places, torch.arange(done, done + count, dtype=torch.float64).expand(rows, count))
        dearest = paid[:, -1:]
        done += count
        if 0 < size - done <= COMPACT * remaining.weight.shape[1]:
            remaining = remaining.packed(size - done)
    return losses, turns

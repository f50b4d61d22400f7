"""Optimal Brain Surgeon on every row of a layer at once, down to the last weight."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.compression.hessians import Matrix, invertible
from pipeline.compression.parallel import over_chunks

CHUNK_BYTES = 64 * 2**20
SMALL_BYTES = 32 * 2**20
LEAST_CHUNKS = 8
"""Most and least bytes of inverse Hessians in a chunk of rows, and chunks that keep cores busy in between.

Steps on small chunks are mostly Python's own time, which threads cannot share."""
STEP = 1 / 64
"""Part of a row's remaining weights that goes at a time; one by one below 1 / STEP weights."""
COMPACT = 0.7
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

    row_bytes = 8 * len(hessian) ** 2
    rows_a_chunk = min(CHUNK_BYTES // row_bytes, max(SMALL_BYTES // row_bytes, -(-len(weight) // LEAST_CHUNKS)))
    over_chunks(work, torch.split(torch.arange(len(weight)), max(1, rows_a_chunk)))
    return losses.numpy(), turns.numpy()


@dataclass(slots=True)
class _Remaining:
    """What is left of a chunk of rows; all rows have lost the same number of weights.

    A removal changes the whole inverse by a product of few columns, which moves much memory for little arithmetic.
    So removals are kept as factors, only what is asked for is brought up to date, and packing applies them at once.

    Args:
        inverse: [rows, s, s] H_S⁻¹ of each row as it was packed.
        factors: [rows, k, s] F of the weights removed since, in the first ``removed`` of k: H_S⁻¹ is now inverse - FᵀF.
        removed: how many these are.
        diagonal: [rows, s] of H_S⁻¹ as it is now.
        weight: [rows, s] current values.
        columns: [rows, s] where each stood in the layer.
        alive: [rows, s] False for weights that have gone since the last packing.
    """

    inverse: Tensor
    factors: Tensor
    removed: int
    diagonal: Tensor
    weight: Tensor
    columns: Tensor
    alive: Tensor

    @classmethod
    def pack(cls, inverse: Tensor, weight: Tensor, columns: Tensor) -> "_Remaining":
        """With nothing removed yet."""
        rows, size = weight.shape
        most = size - int(COMPACT * size) + int(STEP * size) + 1
        factors = torch.empty(rows, most, size, dtype=torch.float64)
        diagonal = inverse.diagonal(dim1=1, dim2=2).clone()
        return cls(inverse, factors, 0, diagonal, weight, columns, torch.ones_like(weight) > 0)

    def cheapest(self, count: int) -> Tensor:
        """[rows, count] positions of each row's least losses, in ascending order."""
        losses = self.weight.square() / self.diagonal
        return torch.topk(losses.masked_fill_(~self.alive, torch.inf), count, largest=False).indices

    def remove(self, chosen: Tensor) -> Tensor:
        """Take the chosen weights out, adjust the others, and return the losses [rows, count]."""
        rows, count = chosen.shape
        earlier = self.factors[:, : self.removed]
        own = earlier.gather(2, chosen[:, None, :].expand(rows, self.removed, count))
        changed = torch.baddbmm(_take(self.inverse, chosen), own.transpose(1, 2), earlier, alpha=-1)
        among = changed.gather(2, chosen[:, None, :].expand(rows, count, count))
        lower = torch.linalg.cholesky(among)
        z = torch.linalg.solve_triangular(lower, self.weight.gather(1, chosen)[:, :, None], upper=False)
        # L⁻¹C as (CᵀL⁻ᵀ)ᵀ: in this layout nothing is copied
        update = torch.linalg.solve_triangular(lower.mT, changed.mT, upper=True, left=False).mT
        self.factors[:, self.removed : self.removed + count] = update
        self.removed += count
        self.diagonal -= update.square().sum(dim=1)
        self.weight -= (z.transpose(1, 2) @ update)[:, 0]
        self.alive.scatter_(1, chosen, False)
        losses: Tensor = z[:, :, 0].square() / 2
        return losses

    def packed(self, left: int) -> "_Remaining":
        """Without the weights that have gone; ``left`` of each row remain."""
        keep = self.alive.nonzero()[:, 1].reshape(-1, left)
        inverse = _take(self.inverse, keep).gather(2, keep[:, None, :].expand(-1, left, left))
        factors = self.factors[:, : self.removed].gather(2, keep[:, None, :].expand(-1, self.removed, left))
        inverse.baddbmm_(factors.transpose(1, 2), factors, alpha=-1)
        return _Remaining.pack(inverse, self.weight.gather(1, keep), self.columns.gather(1, keep))


def _take(matrices: Tensor, chosen: Tensor) -> Tensor:
    """[rows, count, k] the chosen [rows, count] lines of every matrix [rows, s, k]; whole lines are copied fast."""
    rows, size, width = matrices.shape
    lines = (torch.arange(rows)[:, None] * size + chosen).ravel()
    return matrices.reshape(rows * size, width).index_select(0, lines).reshape(rows, -1, width)


def _eliminate_rows(inverse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and turns [rows, d] of a chunk of rows."""
    rows, size = weight.shape
    losses, turns = torch.empty_like(weight), torch.empty_like(weight)
    columns = torch.arange(size).expand(rows, size)
    remaining = _Remaining.pack(inverse.repeat(rows, 1, 1), weight.clone(), columns)
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

"""What a layer's Hessian says about a change of its weights.

Everywhere in this package ``hessian`` is H = 2XXᵀ of a layer's inputs, [d, d], or [groups, d, d] for a grouped
convolution whose groups own equal runs of rows; ``weight`` is the layer's weight as a matrix [rows, d].
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Mask = NDArray[np.bool_]

RELATIVE_DAMPING = 1e-8
"""Of the mean diagonal, added to a singular Hessian: far below any weight's effect, far above rounding errors."""
SINGULAR = 1e-10
"""A squared Cholesky pivot below this part of the mean diagonal makes a Hessian singular."""


def by_group(hessian: Matrix, rows: int) -> Iterator[tuple[Matrix, slice]]:
    """Each group's Hessian [d, d] and the rows that it belongs to."""
    hessians = hessian if hessian.ndim == 3 else hessian[None]
    share = rows // len(hessians)
    for group, own in enumerate(hessians):
        yield own, slice(group * share, (group + 1) * share)


def invertible(hessian: Matrix) -> Matrix:
    """``hessian`` [d, d], damped if it is singular, as dead or dependent inputs make it.

    Least squares under H + λI stay below the error of merely masked weights under H: the masked weights are
    feasible, and the penalty λ‖ŵ - w‖² is smallest for them.
    """
    mean = float(np.mean(np.diag(hessian)))
    if mean == 0:
        return np.eye(len(hessian))
    if _smallest_pivot(hessian) > SINGULAR * mean:
        return hessian
    damping = RELATIVE_DAMPING
    while True:  # rounding of a sum over many samples may outweigh a small damping
        damped: Matrix = hessian + damping * mean * np.eye(len(hessian))
        if _smallest_pivot(damped) > SINGULAR * mean:
            return damped
        damping *= 10


def _smallest_pivot(hessian: Matrix) -> float:
    try:
        return float(np.min(np.diag(np.linalg.cholesky(hessian)) ** 2))
    except np.linalg.LinAlgError:
        return 0.0


def reconstruction_error(hessian: Matrix, dense: Matrix, weight: Matrix) -> float:
    """½ tr((W - Ŵ) H (W - Ŵ)ᵀ), the squared error of the layer's outputs over all its inputs.

    Args:
        hessian: [d, d] or [groups, d, d].
        dense: [rows, d] the original weights W.
        weight: [rows, d] the compressed weights Ŵ.
    """
    change = dense - weight
    squares = (float(np.sum((change[rows] @ own) * change[rows])) for own, rows in by_group(hessian, len(change)))
    return max(0.0, 0.5 * sum(squares))  # rounding may leave a tiny negative number


def relative_error(hessian: Matrix, dense: Matrix, weight: Matrix) -> float:
    """`reconstruction_error` over that of no weights at all, ½ tr(W H Wᵀ): 0 for dense, 1 for a layer that is gone."""
    everything = reconstruction_error(hessian, dense, np.zeros_like(dense))
    return relative(reconstruction_error(hessian, dense, weight), everything)


def relative(error: float, everything: float) -> float:
    """An error over that of no weights at all; a layer whose outputs are zero anyway has none."""
    return error / everything if everything else 0.0

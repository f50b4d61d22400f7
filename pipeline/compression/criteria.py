"""Criteria: in which order a layer's weights go."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.compression.elimination import eliminate
from pipeline.compression.hessians import Mask, Matrix, by_group

Ranking = NDArray[np.int64]
"""[rows, d] a permutation of 0 ... rows·d - 1: the weight with 0 goes first."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """Which weights go.

    Args:
        name: in flags and files.
        ranking: the order over a whole layer, from its Hessian and dense weights; masks of all levels are nested.
        saliency: how much each weight of a block [rows, k] matters in a one-pass sweep, from the current weights
            and the diagonal [k] of the inverse Hessian's Cholesky factor.
    """

    name: str
    ranking: Callable[[Matrix, Matrix], Ranking]
    saliency: Callable[[Matrix, Matrix], Matrix]


def kept_count(size: int, sparsity: float) -> int:
    """How many of ``size`` weights stay at a sparsity."""
    return round((1.0 - sparsity) * size)


def mask_of(ranking: Ranking, sparsity: float) -> Mask:
    """[rows, d] the weights that stay, exactly round(density · size) of them."""
    return ranking >= ranking.size - kept_count(ranking.size, sparsity)


def rank(*keys: Matrix) -> Ranking:
    """The ranking by the first key, ties broken by the next ones and last by position; arrays [rows, d]."""
    order = np.lexsort([key.ravel() for key in reversed(keys)])
    ranking = np.empty(order.size, np.int64)
    ranking[order] = np.arange(order.size)
    return ranking.reshape(keys[0].shape)


def magnitude_ranking(_: Matrix, weight: Matrix) -> Ranking:
    """Small weights go first."""
    return rank(np.abs(weight))


def magnitude_mask(weight: Matrix, sparsity: float) -> Mask:
    """[rows, d] the largest weights of the layer, exactly round(density · size) of them, ties broken by position."""
    return mask_of(rank(np.abs(weight)), sparsity)


def obs_ranking(hessian: Matrix, weight: Matrix) -> Ranking:
    """The weight whose loss hurts least goes first, the others having been adjusted to all earlier losses.

    Rows are independent of each other, so each is eliminated on its own and the losses of all are sorted together
    (Frantar & Alistarh 2022, Optimal Brain Compression, section 4). An elimination that came after a dearer one in its
    row cannot happen before it, hence the running maximum.
    """
    losses, turns = np.empty_like(weight), np.empty_like(weight)
    for own, rows in by_group(hessian, len(weight)):
        losses[rows], turns[rows] = eliminate(own, weight[rows])
    return rank(losses, turns)


CRITERIA = {
    "magnitude": Criterion("magnitude", magnitude_ranking, lambda weight, _: np.abs(weight)),
    "obs": Criterion("obs", obs_ranking, lambda weight, diagonal: (weight / diagonal) ** 2),
}

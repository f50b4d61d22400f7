"""Spearman's rank correlation, also of samples that are drawn with repetition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def standard_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    """Ranks [n] with mean 0 and variance 1; equal values share their mean rank."""
    (ranks,) = _ranks(values, np.ones((1, len(values)), np.int64))
    spread = ranks.std()
    return (ranks - ranks.mean()) / spread if spread > 0 else np.zeros(len(ranks))


def resampled_correlation(first: NDArray[Any], second: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Spearman's correlation [draws] of two values [n] a sample, at least 0.

    Args:
        first: [n].
        second: [n].
        counts: [draws, n] how often each sample was drawn.
    """
    total = counts.sum(axis=1, keepdims=True)
    x, y = (_ranks(values, counts) - (total + 1) / 2 for values in (first, second))  # the mean of all ranks
    product, squares = (counts * x * y).sum(axis=1), (counts * x * x).sum(axis=1) * (counts * y * y).sum(axis=1)
    spread = np.sqrt(squares)
    correlation: NDArray[np.float64] = np.divide(product, spread, out=np.zeros(len(counts)), where=spread > 0)
    return correlation.clip(0)


def _ranks(values: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """[draws, n] mean rank of each sample's copies among all copies, equal values being one group."""
    order = np.argsort(values, kind="stable")
    _, group = np.unique(values, return_inverse=True)
    _, starts = np.unique(values[order], return_index=True)
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = sizes.cumsum(axis=1) - (sizes - 1) / 2
    return ranks[:, group]

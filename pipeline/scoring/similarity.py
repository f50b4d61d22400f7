"""Sentence embeddings: do they find those sentences alike that people find alike?"""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Truth
from pipeline.certification.accuracy import Score
from pipeline.scoring.rank_correlation import resampled_correlation, standard_ranks


class SimilarityScorer:
    """Spearman's correlation; inputs 2i and 2i + 1 are pair i. Implements `pipeline.scoring.base.Scorer`."""

    keys: Mapping[str, str] = {"scores": "[n / 2] how alike inputs 0 and 1, 2 and 3, … are"}
    optional: frozenset[str] = frozenset()

    def problem(self, truth: Truth, rows: int) -> str | None:
        """Scores are finite numbers, one for two inputs, and not all the same."""
        scores = truth["scores"]
        if 2 * len(scores) != rows or scores.ndim != 1 or not np.issubdtype(scores.dtype, np.number):
            return f"{rows} inputs and scores {scores.shape} {scores.dtype}"
        alike = not np.isfinite(scores).all() or np.ptp(scores) == 0
        return "scores that are all alike or not finite, with which nothing correlates" if alike else None

    def score(self, outputs: Iterable[NDArray[np.float32]], truth: Truth, metric: str) -> Score:
        """Spearman's rank correlation, at least 0, of the pairs' cosines of embeddings [n, hidden] with their scores.

        It is the mean of products of standardised ranks, which are given pair by pair.
        """
        cosines, scores = pair_cosines(np.concatenate(list(outputs))), truth["scores"]
        products = standard_ranks(cosines) * standard_ranks(scores)
        correlation = partial(resampled_correlation, cosines, scores)
        return Score(metric, max(0.0, float(products.mean())), products, resampled=correlation)


def pair_cosines(embeddings: NDArray[np.float32]) -> NDArray[np.float64]:
    """[m] cosines of embeddings 2i and 2i + 1 of [2m, hidden]."""
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    directions = embeddings / np.maximum(lengths, np.finfo(np.float64).tiny)
    return (directions[::2] * directions[1::2]).sum(axis=1)  # type: ignore[no-any-return]

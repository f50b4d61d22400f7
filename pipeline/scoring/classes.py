"""Classifiers: is the likeliest class the right one?"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Truth
from pipeline.certification.accuracy import Score


class ClassScorer:
    """Accuracy; implements `pipeline.scoring.base.Scorer`."""

    keys: Mapping[str, str] = {"labels": "[n] the number of each input's class"}
    optional: frozenset[str] = frozenset()

    def problem(self, truth: Truth, rows: int) -> str | None:
        """Labels are whole numbers, one an input."""
        labels = truth["labels"]
        if labels.shape == (rows,) and np.issubdtype(labels.dtype, np.integer):
            return None
        return f"{rows} inputs and labels {labels.shape} {labels.dtype}"

    def score(self, outputs: Iterable[NDArray[np.float32]], truth: Truth, metric: str) -> Score:
        """Share of outputs [n, classes] whose largest is the label's."""
        hits = (np.concatenate(list(outputs)).argmax(axis=1) == truth["labels"]).astype(np.float64)
        return Score(metric, float(hits.mean()), hits)

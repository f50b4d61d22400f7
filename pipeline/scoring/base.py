"""What is asked of every task that samples with the right answers can judge."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Truth
from pipeline.certification.accuracy import Score


class Scorer(Protocol):
    """How the networks of a task are scored; needs no torch and no data set, so that a device can do it.

    Args:
        keys: arrays of a truth as `calibration.datasets.Split.truth` gives it, each with what is in it.
        optional: those among them that may be missing.
    """

    keys: Mapping[str, str]
    optional: frozenset[str]

    def problem(self, truth: Truth, rows: int) -> str | None:
        """What keeps a truth from being that of ``rows`` inputs, None where nothing does."""

    def score(self, outputs: Iterable[NDArray[np.float32]], truth: Truth, metric: str) -> Score:
        """The score of a deployed network's outputs, under the name that its family gives it.

        Args:
            outputs: [k, …] a part of the samples at a time, so that large ones need not be in memory together.
        """

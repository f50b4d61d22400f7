"""Intervals of what was lost."""

import numpy as np
import pytest

from pipeline.certification.accuracy import Score, accuracy_record


def _mean(values: np.ndarray) -> Score:
    return Score("top-1", float(values.mean()), values)


def test_the_interval_is_paired() -> None:
    rng = np.random.default_rng(0)
    hits = (rng.random(2000) < 0.9).astype(float)
    worse = hits.copy()
    worse[np.flatnonzero(hits)[:20]] = 0
    record = accuracy_record(_mean(hits), _mean(worse))
    assert record["difference"] == pytest.approx(-0.01)
    assert -0.016 < record["ci_low"] < -0.01 < record["ci_high"] < -0.004
    same = accuracy_record(_mean(hits), _mean(hits))
    assert same["ci_low"] == same["ci_high"] == 0


def test_it_is_as_wide_as_theory_says() -> None:
    differences = np.random.default_rng(1).normal(0, 1, 400)
    record = accuracy_record(_mean(np.zeros(400)), _mean(differences))
    assert record["ci_high"] - record["ci_low"] == pytest.approx(2 * 1.96 * differences.std() / 20, rel=0.1)


def test_metrics_that_are_no_means_are_computed_of_every_draw() -> None:
    """The largest value of a sample, which no shift of a mean imitates."""
    values = np.arange(100) / 100

    def score(shift: float) -> Score:
        largest = lambda counts: np.where(counts > 0, values + shift, 0).max(axis=1)  # noqa: E731
        return Score("largest", 0.99 + shift, values, resampled=largest)

    record = accuracy_record(score(0), score(-0.1))
    assert record["ci_low"] == pytest.approx(-0.1)
    assert record["ci_high"] == pytest.approx(-0.1)

"""Spearman's correlation of samples that are drawn with repetition."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from pipeline.scoring.rank_correlation import resampled_correlation


def test_it_is_scipys_of_the_copies():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 40) / 5  # many are equal
    cosines = scores + rng.normal(0, 0.3, 40)
    counts = rng.multinomial(40, np.full(40, 1 / 40), size=20)
    found = resampled_correlation(cosines, scores, counts)
    expected = [spearmanr(np.repeat(cosines, drawn), np.repeat(scores, drawn)).statistic for drawn in counts]
    assert found == pytest.approx(expected)


def test_draws_without_spread_and_negative_ones_are_0():
    values = np.array([0.1, 0.2, 0.3])
    assert resampled_correlation(values, values, np.array([[3, 0, 0], [1, 1, 1]])) == pytest.approx([0, 1])
    assert resampled_correlation(values, -values, np.array([[1, 1, 1]])) == pytest.approx([0])

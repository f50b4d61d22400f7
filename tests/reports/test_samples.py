import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.samples import cumulative, distribution, positive, ratio, thinned, total


def test_percentiles_of_known_samples() -> None:
    stats = distribution(np.arange(1, 102, dtype=float))
    assert stats is not None
    assert (stats.n, stats.p50_s, stats.p90_s, stats.p99_s, stats.max_s) == (101, 51, 91, 100, 101)
    assert stats.spread == pytest.approx(50 / 51)


def test_no_samples_no_statistics() -> None:
    assert distribution(positive([None, 0.0, -1.0])) is None


def test_the_cumulative_curve_counts_the_runs_below() -> None:
    samples = np.random.default_rng(0).lognormal(size=1000)
    values_ms, shares = cumulative(samples)
    below = [100 * np.mean(samples <= value / 1000 * (1 + 1e-5)) for value in values_ms]
    assert np.allclose(below, shares, atol=0.2)
    assert shares[-1] == 99


@given(st.integers(0, 5000), st.integers(2, 600))
def test_thinning_keeps_both_ends_and_the_order(length: int, keep: int) -> None:
    indices = thinned(length, keep)
    assert len(indices) == min(length, keep)
    assert indices == sorted(set(indices))
    if length:
        assert (indices[0], indices[-1]) == (0, length - 1)


def test_unknown_parts_make_an_unknown_whole() -> None:
    assert total([1.0, None]) is None
    assert total([]) is None
    assert total([1.0, 2.0]) == 3.0
    assert ratio(1.0, 0.0) is None
    assert ratio(1e308, 1e-308) is None
    assert ratio(3.0, 2.0) == 1.5

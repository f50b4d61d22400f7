"""What disturbed a measurement is taken out of it, and what it is trusted with."""

import numpy as np
import pytest

from pipeline.measuring import DISTURBED_WEIGHT, trust, undisturbed_ratio


def test_only_undisturbed_rounds_count_where_there_are_enough() -> None:
    samples, reference = [0.0106] * 20 + [0.0126] * 20, [0.0370] * 20 + [0.0390] * 20

    relative, weight = undisturbed_ratio(samples, reference, quiet_s=0.0370)

    assert relative == pytest.approx(0.0106 / 0.0370)
    assert weight == pytest.approx(1)


def test_a_measurement_without_quiet_rounds_counts_little() -> None:
    relative, weight = undisturbed_ratio([0.0126] * 20, [0.0390] * 20, quiet_s=0.0370)

    assert relative == pytest.approx(0.0126 / 0.0390)
    assert weight == pytest.approx(DISTURBED_WEIGHT)


def test_a_quiet_machine_unknown_so_far_is_taken_from_the_samples() -> None:
    relative, weight = undisturbed_ratio([0.01] * 20, [0.03] * 20, quiet_s=float("inf"))

    assert (relative, weight) == (pytest.approx(1 / 3), pytest.approx(1))


def test_the_more_a_measurement_scatters_the_less_it_is_trusted() -> None:
    rng = np.random.default_rng(0)
    reference = np.full(40, 0.03)
    weights = [trust(0.01 * np.exp(rng.normal(0, noise, 40)), reference) for noise in (0.001, 0.02, 0.2)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.95
    assert weights[2] < 0.2

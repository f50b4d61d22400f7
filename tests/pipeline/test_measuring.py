"""What disturbed a measurement is taken out of it, and what it is trusted with."""

import numpy as np
import pytest

from pipeline.measuring import trust, undisturbed_ratio


def test_time_that_both_lost_is_taken_off_both() -> None:
    assert undisturbed_ratio(0.0126, 0.0390, quiet_s=0.0370) == pytest.approx(0.0106 / 0.0370)


def test_a_quiet_measurement_stays_as_it_is() -> None:
    assert undisturbed_ratio(0.0106, 0.0369, quiet_s=0.0370) == pytest.approx(0.0106 / 0.0369)
    assert undisturbed_ratio(0.0106, 0.0379, quiet_s=0.0370) == pytest.approx(0.0106 / 0.0379)


def test_more_than_half_of_a_sample_is_never_taken_off() -> None:
    assert undisturbed_ratio(0.010, 0.080, quiet_s=0.0370) == pytest.approx(0.010 / 0.080)


def test_the_more_a_measurement_scatters_the_less_it_is_trusted() -> None:
    rng = np.random.default_rng(0)
    reference = np.full(40, 0.03)
    weights = [trust(0.01 * np.exp(rng.normal(0, noise, 40)), reference) for noise in (0.001, 0.02, 0.2)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.95
    assert weights[2] < 0.2

"""What disturbed a measurement is taken out of it, and what it is trusted with."""

import numpy as np

from pipeline.measuring import trust, undisturbed

NEAR_S, FAR_S = 0.2e-6, 0.6e-6


def test_samples_of_rounds_with_the_cores_apart_are_left_out() -> None:
    row = {
        "samples_s": [0.0045] * 20 + [0.0058] * 20,
        "reference_s": [0.0041] * 20 + [0.0055] * 20,
        "distance_s": [NEAR_S] * 20 + [FAR_S] * 20,
    }

    ((samples, reference),) = undisturbed([row], None)

    assert samples.tolist() == [0.0045] * 20
    assert reference.tolist() == [0.0041] * 20


def test_where_the_cores_were_apart_all_the_time_every_sample_counts() -> None:
    row = {"samples_s": [0.0058] * 20, "reference_s": [0.0055] * 20, "distance_s": [FAR_S] * 20}

    ((samples, _),) = undisturbed([row], NEAR_S)

    assert len(samples) == 20


def test_a_process_with_the_cores_apart_is_left_out_where_others_were_quiet() -> None:
    near = {"samples_s": [0.020] * 20, "reference_s": [0.0045] * 20, "distance_s": [NEAR_S] * 20}
    far = {"samples_s": [0.020] * 20, "reference_s": [0.0056] * 20, "distance_s": [FAR_S] * 20}

    ((_, reference),) = undisturbed([near, far], None)

    assert reference.tolist() == [0.0045] * 20


def test_the_more_a_measurement_scatters_the_less_it_is_trusted() -> None:
    rng = np.random.default_rng(0)
    reference = np.full(40, 0.03)
    weights = [trust(0.01 * np.exp(rng.normal(0, noise, 40)), reference) for noise in (0.001, 0.02, 0.2)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.95
    assert weights[2] < 0.2

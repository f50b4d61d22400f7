import numpy as np
import pytest

from pipeline.search.error_models import ERROR_MODELS, fitted_coefficients, measured, quadratic


def test_quadratic_is_equation_4_with_every_coefficient_1():
    rows = quadratic([np.zeros(42), np.zeros(1), np.array([0.0, np.inf, 3.0])])
    assert rows[0][[0, 41]].tolist() == [0.0, 1.0]
    assert rows[0][20] == pytest.approx((20 / 41) ** 2)
    assert rows[1].tolist() == [0.0]
    assert rows[2].tolist() == [0.0, np.inf, 1.0]


def test_measured_is_what_was_measured():
    rows = [np.array([0.0, 0.3]), np.array([0.0, np.inf])]
    assert all(np.array_equal(a, b) for a, b in zip(measured(rows), rows, strict=True))
    assert set(ERROR_MODELS) == {"quadratic", "measured"}


def test_fitted_coefficients_recover_the_sensitivities_behind_the_errors():
    sensitivities = np.array([2.0, 0.5, 1.0])
    model = quadratic([np.zeros(10)] * 3)
    errors = [s * row for s, row in zip(sensitivities, model, strict=True)]
    errors[1][3] = np.inf
    assert fitted_coefficients(model, errors) == pytest.approx(sensitivities / 2)


def test_fitted_coefficients_without_any_error_are_all_1():
    assert fitted_coefficients(quadratic([np.zeros(4)] * 2), [np.zeros(4)] * 2).tolist() == [1.0, 1.0]

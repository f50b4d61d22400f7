import numpy as np
import pytest

from pipeline.compression.hessians import invertible, reconstruction_error, relative_error
from tests.compression.problems import layer


def test_error_is_half_the_hessian_form_of_the_output_difference():
    hessian, dense, inputs = layer(4, 12)
    weight = dense + np.random.default_rng(1).normal(size=dense.shape)
    squared = np.sum(((dense - weight) @ inputs) ** 2)
    assert reconstruction_error(hessian, dense, weight) == pytest.approx(squared)
    assert relative_error(hessian, dense, weight) == pytest.approx(squared / np.sum((dense @ inputs) ** 2))


def test_groups_own_equal_runs_of_rows():
    (first, dense_1, _), (second, dense_2, _) = layer(3, 5, 0), layer(3, 5, 1)
    both, dense = np.stack([first, second]), np.concatenate([dense_1, dense_2])
    expected = reconstruction_error(first, dense_1, 0 * dense_1) + reconstruction_error(second, dense_2, 0 * dense_2)
    assert reconstruction_error(both, dense, 0 * dense) == pytest.approx(expected)


def test_ends_of_the_relative_error():
    hessian, dense, _ = layer(3, 5)
    assert relative_error(hessian, dense, dense) == 0
    assert relative_error(hessian, dense, 0 * dense) == 1
    assert relative_error(0 * hessian, dense, 0 * dense) == 0


def test_only_singular_hessians_are_damped():
    hessian, _, _ = layer(1, 8)
    assert invertible(hessian) is hessian
    dead = hessian.copy()
    dead[3] = dead[:, 3] = 0
    twins = hessian.copy()
    twins[5], twins[:, 5] = twins[4], twins[:, 4]
    for singular in (dead, twins, 0 * hessian):
        repaired = invertible(singular)
        assert np.linalg.eigvalsh(repaired).min() > 0
        np.testing.assert_allclose(repaired, singular, atol=1e-7 * np.trace(singular) + (singular.max() == 0))


def test_a_hessian_of_fewer_samples_than_inputs_is_damped_until_it_can_be_factored() -> None:
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((600, 250)).astype(np.float32) * np.float32(30)
    hessian = (2 * columns @ columns.T).astype(np.float64)  # rounded as a sum in float32 is
    damped = invertible(hessian)
    np.linalg.cholesky(damped)
    assert np.abs(damped - hessian).max() < 1e-3 * np.mean(np.diag(hessian))

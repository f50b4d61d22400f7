import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compression import solvers
from pipeline.compression.criteria import CRITERIA, magnitude_mask
from pipeline.compression.hessians import reconstruction_error
from pipeline.compression.solvers import SOLVERS, blocked_obs, least_squares, obs_levels
from tests.compression.problems import layer


def test_least_squares_is_regression_on_the_kept_inputs():
    hessian, weight, inputs = layer(6, 15)
    mask = np.random.default_rng(0).random(weight.shape) < 0.4
    mask[2] = False
    solved = least_squares(hessian, weight, mask)
    for row, kept in enumerate(mask):
        fitted = np.linalg.lstsq(inputs[kept].T, weight[row] @ inputs, rcond=None)[0]
        np.testing.assert_allclose(solved[row, kept], fitted, atol=1e-8)
    assert not solved[~mask].any()


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 15), st.integers(0, 1000), st.floats(0, 1))
def test_never_worse_than_masking_whatever_the_hessian(rows, size, samples, seed, density):
    hessian, weight, _ = layer(rows, size, seed, samples)
    rng = np.random.default_rng(seed)
    dead = rng.random(size) < 0.2
    hessian[dead] = hessian[:, dead] = 0
    mask = rng.random(weight.shape) < density
    solved = least_squares(hessian, weight, mask)
    assert not solved[~mask].any()
    masked = reconstruction_error(hessian, weight, weight * mask)
    assert reconstruction_error(hessian, weight, solved) <= masked * (1 + 1e-9) + 1e-9 * np.trace(hessian)


def test_everything_kept_is_dense_and_nothing_kept_is_zero():
    hessian, weight, _ = layer(4, 9)
    np.testing.assert_allclose(least_squares(hessian, weight, np.ones(weight.shape, bool)), weight, atol=1e-9)
    assert not least_squares(hessian, weight, np.zeros(weight.shape, bool)).any()


def test_groups_are_solved_with_their_own_hessian():
    (first, weight_1, _), (second, weight_2, _) = layer(3, 8, 0), layer(3, 8, 1)
    weight = np.concatenate([weight_1, weight_2])
    mask = magnitude_mask(weight, 0.5)
    apart = [least_squares(first, weight_1, mask[:3]), least_squares(second, weight_2, mask[3:])]
    np.testing.assert_allclose(least_squares(np.stack([first, second]), weight, mask), np.concatenate(apart))


def test_obs_levels_are_least_squares_on_their_masks_and_errors_rise():
    hessian, weight, _ = layer(6, 50)
    sparsities = [0.1, 0.4, 0.7, 0.9, 0.95]
    errors = []
    for sparsity, (level, mask) in zip(sparsities, obs_levels(hessian, weight, sparsities), strict=True):
        assert mask.sum() == round((1 - sparsity) * 300)
        np.testing.assert_allclose(level, least_squares(hessian, weight, mask), atol=1e-10)
        errors.append(reconstruction_error(hessian, weight, level))
    assert errors == sorted(errors)


def test_obs_beats_magnitude_with_the_same_solver():
    hessian, weight, _ = layer(8, 60)
    for sparsity in (0.5, 0.8, 0.9):
        obs, magnitude = (
            reconstruction_error(
                hessian, weight, next(SOLVERS["least-squares"](hessian, weight, [sparsity], criterion))
            )
            for criterion in (CRITERIA["obs"], CRITERIA["magnitude"])
        )
        assert obs < magnitude


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(1, 40), st.floats(0, 0.99), st.integers(1, 50))
def test_blocked_sweep_has_the_exact_count(rows, size, sparsity, block):
    hessian, weight, _ = layer(rows, size)
    level, mask = blocked_obs(hessian, weight, sparsity, block)
    assert mask.sum() == round((1 - sparsity) * weight.size)
    assert not level[~mask].any()


def test_blocked_sweep_lies_between_masking_and_least_squares():
    hessian, weight, _ = layer(16, 96)
    for sparsity in (0.5, 0.8, 0.9):
        level, mask = blocked_obs(hessian, weight, sparsity, block=32)
        error = reconstruction_error(hessian, weight, level)
        assert error < reconstruction_error(hessian, weight, weight * mask)
        assert error >= reconstruction_error(hessian, weight, least_squares(hessian, weight, mask))


def test_blocked_sweep_with_unrelated_inputs_is_magnitude_in_every_block():
    weight = np.random.default_rng(0).normal(size=(6, 20))
    level, mask = blocked_obs(np.eye(20), weight, 0.5, block=10)
    np.testing.assert_allclose(level, weight * mask)
    for start in (0, 10):
        np.testing.assert_array_equal(mask[:, start : start + 10], magnitude_mask(weight[:, start : start + 10], 0.5))


def test_blocked_sweep_knows_groups():
    (first, weight_1, _), (second, weight_2, _) = layer(3, 8, 0), layer(3, 8, 1)
    level, _ = blocked_obs(np.stack([first, second]), np.concatenate([weight_1, weight_2]), 0.5)
    apart = [blocked_obs(first, weight_1, 0.5)[0], blocked_obs(second, weight_2, 0.5)[0]]
    np.testing.assert_allclose(level, np.concatenate(apart))


@pytest.mark.parametrize("affordable", [1e12, 3000, 1])
def test_size_decides_between_exact_and_blocked(monkeypatch, affordable):
    monkeypatch.setattr(solvers, "AFFORDABLE", affordable)
    hessian, weight, _ = layer(4, 30)  # 108,000 steps in full, 864 at 80%
    half, most = SOLVERS["auto"](hessian, weight, [0.5, 0.8], CRITERIA["obs"])
    swept_half, swept_most = (blocked_obs(hessian, weight, sparsity) for sparsity in (0.5, 0.8))
    if affordable == 1e12:
        exact = [level for level, _ in obs_levels(hessian, weight, [0.5, 0.8])]
        np.testing.assert_allclose(half, exact[0])
        np.testing.assert_allclose(most, exact[1])
        return
    np.testing.assert_allclose(half, swept_half[0])
    refitted = least_squares(hessian, weight, swept_most[1])
    np.testing.assert_allclose(most, refitted if affordable == 3000 else swept_most[0])

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.compression.criteria import CRITERIA, magnitude_mask, mask_of
from tests.compression.problems import layer


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 0.99), st.integers(0, 3), st.integers(0, 5))
def test_magnitude_mask_keeps_exactly_the_largest(rows, size, sparsity, distinct, seed):
    weight = np.random.default_rng(seed).integers(-distinct, distinct + 1, (rows, size)).astype(float)
    mask = magnitude_mask(weight, sparsity)
    assert mask.sum() == round((1 - sparsity) * weight.size)
    assert np.abs(weight[mask]).min(initial=np.inf) >= np.abs(weight[~mask]).max(initial=0)
    np.testing.assert_array_equal(mask, magnitude_mask(weight.copy(), sparsity))


def test_among_equals_the_first_go_first():
    assert magnitude_mask(np.array([[1.0, -1.0], [1.0, 1.0]]), 0.5).tolist() == [[False, False], [True, True]]


@pytest.mark.parametrize("name", CRITERIA)
def test_masks_of_all_levels_are_nested_and_exact(name):
    hessian, weight, _ = layer(6, 20)
    ranking = CRITERIA[name].ranking(hessian, weight)
    assert sorted(ranking.ravel()) == list(range(weight.size))
    masks = [mask_of(ranking, sparsity) for sparsity in (0.2, 0.5, 0.51, 0.9, 0.99)]
    assert [mask.sum() for mask in masks] == [96, 60, 59, 12, 1]
    assert all(np.all(larger >= smaller) for larger, smaller in pairwise(masks))


@pytest.mark.parametrize("size", [30, 200])
def test_identity_hessian_gives_magnitude_order(size):
    weight = np.random.default_rng(0).normal(size=(5, size))
    obs = CRITERIA["obs"].ranking(3.0 * np.eye(size), weight)
    np.testing.assert_array_equal(obs, CRITERIA["magnitude"].ranking(np.eye(size), weight))


def test_diagonal_hessian_gives_the_order_of_optimal_brain_damage():
    rng = np.random.default_rng(0)
    weight, diagonal = rng.normal(size=(4, 25)), rng.uniform(0.01, 10, 25)
    ranking = CRITERIA["obs"].ranking(np.diag(diagonal), weight)
    np.testing.assert_array_equal(np.argsort(ranking, axis=None), np.argsort(diagonal * weight**2, axis=None))


def test_groups_compete_in_one_ranking():
    weight = np.array([[1.0, 2.0], [3.0, 4.0]])
    hessians = np.stack([100 * np.eye(2), np.eye(2)])
    assert CRITERIA["obs"].ranking(hessians, weight).tolist() == [[2, 3], [0, 1]]


def test_dead_inputs_go_first():
    hessian, weight, _ = layer(4, 16)
    hessian[[2, 9]] = hessian[:, [2, 9]] = 0
    ranking = CRITERIA["obs"].ranking(hessian, weight)
    assert ranking[:, [2, 9]].max() < 8

"""Masks keep exactly what they should."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline.training.masks import apply_masks, magnitude_mask, nonzero_masks, sparsity


@given(size=st.integers(1, 300), amount=st.floats(0, 1), ties=st.booleans(), seed=st.integers(0, 9))
def test_magnitude_masks_keep_the_exact_number_of_the_largest(size, amount, ties, seed):
    weight = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    weight = weight.round() if ties else weight
    mask = magnitude_mask(weight, amount)
    assert int(mask.sum()) == round((1 - amount) * size)
    if mask.any() and not mask.all():
        assert weight[mask].abs().min() >= weight[~mask].abs().max()


def test_masks_are_applied_read_back_and_summed_up():
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    masks = {"0": magnitude_mask(model[0].weight, 0.5), "1": magnitude_mask(model[1].weight, 0.2)}
    apply_masks(model, masks)
    found = nonzero_masks(model, ("0", "1"))
    assert all(torch.equal(found[unit], masks[unit]) for unit in masks)
    assert sparsity(masks) == (10 + 2) / 30
    assert sparsity({}) == 0

"""Schedules against their closed forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.schedule import cosine_lr, cubic_sparsity


def test_cubic_sparsity_meets_both_ends_and_its_middle_leaves_an_eighth():
    assert cubic_sparsity(0, 100, 0.05, 0.9) == pytest.approx(0.05)
    assert cubic_sparsity(100, 100, 0.05, 0.9) == 0.9
    assert cubic_sparsity(5000, 100, 0.05, 0.9) == 0.9
    assert 0.9 - cubic_sparsity(50, 100, 0.05, 0.9) == pytest.approx((0.9 - 0.05) / 8)
    assert cubic_sparsity(0, 0, 0.05, 0.9) == 0.9


@given(steps=st.integers(1, 500), start=st.floats(0, 1), final=st.floats(0, 1))
def test_cubic_sparsity_moves_one_way_between_its_ends(steps, start, final):
    values = [cubic_sparsity(step, steps, start, final) for step in range(steps + 1)]
    ordered = sorted(values, reverse=start > final)
    assert values == pytest.approx(ordered, abs=1e-12)
    assert min(start, final) - 1e-12 <= min(values) <= max(values) <= max(start, final) + 1e-12


def test_cosine_lr_rises_in_a_line_and_falls_to_zero():
    rates = [cosine_lr(step, 110, 0.2, warmup=10) for step in range(111)]
    assert rates[:10] == pytest.approx([0.02 * (i + 1) for i in range(10)])
    assert rates[10] == 0.2
    assert rates[60] == pytest.approx(0.1)
    assert rates[110] == pytest.approx(0)
    assert cosine_lr(0, 10, 0.2) == 0.2

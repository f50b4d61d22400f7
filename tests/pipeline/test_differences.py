import numpy as np
import pytest

from pipeline.differences import relative_differences


def test_every_number_at_a_place_has_its_own_scale():
    """Boxes of hundreds of pixels beside a probability."""
    expected = np.array([[[400.0, 0.5], [200.0, 1.0]]])
    found = expected + np.array([[[4.0, 0.0], [0.0, 0.25]]])
    assert relative_differences(found, expected).max(axis=(0, 1)) == pytest.approx([0.01, 0.25])


def test_outputs_of_one_kind_share_a_scale_and_zeros_have_one():
    assert relative_differences(np.array([[1.0, 9.0]]), np.array([[2.0, 8.0]])).max() == pytest.approx(1 / 8)
    assert relative_differences(np.zeros((2, 3)), np.zeros((2, 3))).max() == 0

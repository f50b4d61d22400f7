"""One box stays for every object."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scoring.nms import find_detections


def _outputs(*rows):
    """x, y, w, h, objectness and two classes."""
    return np.array(rows, np.float32)


def test_the_most_confident_of_overlapping_boxes_of_a_class_stays():
    found = find_detections(
        _outputs(
            [50, 50, 20, 20, 0.8, 0.9, 0.1],
            [52, 50, 20, 20, 0.9, 0.9, 0.1],  # overlaps the first by 0.82 and is more confident
            [52, 50, 20, 20, 0.5, 0.1, 0.9],  # the same place, another class
            [90, 50, 20, 20, 0.7, 0.9, 0.1],  # elsewhere
            [20, 20, 10, 10, 0.0005, 1.0, 0.0],  # below the confidence
        )
    )
    assert found.classes.tolist() == [0, 0, 1]
    assert found.scores == pytest.approx([0.81, 0.63, 0.45])
    assert found.corners == pytest.approx(np.array([[42, 40, 62, 60], [80, 40, 100, 60], [42, 40, 62, 60]]))


@pytest.mark.parametrize(("overlap", "stay"), [(0.81, 1), (0.82, 2)])
def test_boxes_that_overlap_no_more_than_is_allowed_both_stay(overlap, stay):
    rows = _outputs([50, 50, 20, 20, 0.8, 0.9, 0.1], [52, 50, 20, 20, 0.9, 0.9, 0.1])  # 18 / 22 = 0.818
    assert len(find_detections(rows, overlap=overlap).scores) == stay


def test_no_more_than_the_limit_stay():
    x = np.arange(400, dtype=np.float32) * 10
    rows = np.stack([x, x, *np.full((2, 400), 5), np.linspace(0.2, 0.9, 400), *np.ones((2, 400))], 1)
    found = find_detections(rows.astype(np.float32))
    assert len(found.scores) == 300
    assert found.scores[0] == pytest.approx(0.9)


def test_nothing_is_found_where_nothing_is_likely():
    found = find_detections(np.zeros((10, 7), np.float32))
    assert (found.corners.shape, found.scores.shape, found.classes.shape) == ((0, 4), (0,), (0,))


def _iou(a, b):
    w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = max(w, 0) * max(h, 0)
    return common / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - common)


@given(st.integers(0, 10_000), st.floats(0.1, 0.9))
def test_what_stays_is_apart_and_what_goes_has_a_better_one_near(seed, overlap):
    rng = np.random.default_rng(seed)
    rows = rng.random((40, 7)).astype(np.float32)
    rows[:, :4] = rows[:, :4] * (60, 60, 20, 20) + (0, 0, 5, 5)
    kept = find_detections(rows, overlap=overlap)
    every = find_detections(rows, overlap=1.0)
    stays = set(kept.scores.tolist())
    for box, score, kind in zip(every.corners, every.scores, every.classes, strict=True):
        better = [
            _iou(box, other)
            for other, its_score, its_kind in zip(kept.corners, kept.scores, kept.classes, strict=True)
            if its_kind == kind and its_score > score
        ]
        assert (max(better, default=0) <= overlap + 1e-9) == (float(score) in stays)

"""Average precision of cases that can be computed by hand."""

import numpy as np
import pytest

from pipeline.scoring.average_precision import ImageTruth, average_precision
from pipeline.scoring.nms import Detections

BOX = (10, 10, 50, 30)


def _found(*rows):
    """Class, score, corners."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, 2:], table[:, 1], table[:, 0].astype(np.int64))


def _truth(*objects, crowds=()):
    return ImageTruth(np.array(objects, np.float64).reshape(-1, 5), np.array(crowds, np.float64).reshape(-1, 5))


def test_right_boxes_are_perfect_and_nothing_is_printed(capsys):
    found = [_found((1, 0.9, *BOX)), _found((0, 0.3, *BOX))]
    result = average_precision(found, [_truth((1, *BOX)), _truth((0, *BOX))], 2)
    assert (result.mean, result.mean_50) == (pytest.approx(1), pytest.approx(1))
    assert result.per_image == pytest.approx([1, 1])
    assert capsys.readouterr().out == ""


def test_a_box_that_overlaps_by_three_quarters_counts_up_to_there():
    found = [_found((0, 0.9, 10, 10, 40, 30))]  # three quarters of the true box
    result = average_precision(found, [_truth((0, *BOX))], 1)
    assert result.mean_50 == pytest.approx(1)
    assert result.mean == pytest.approx(0.6)  # 0.50, 0.55 … 0.75 of ten overlaps


def test_a_wrong_box_that_is_more_confident_halves_the_precision():
    found = [_found((0, 0.9, 100, 100, 120, 120), (0, 0.5, *BOX)), _found((0, 0.8, *BOX))]
    result = average_precision(found, [_truth((0, *BOX)), _truth((0, *BOX))], 1)
    # Sorted: wrong, right, right. At every recall the best precision from there on is 2/3.
    assert result.mean == pytest.approx(2 / 3)
    assert result.per_image == pytest.approx([0.5, 1])


def test_classes_that_do_not_occur_do_not_count_and_missed_ones_do():
    result = average_precision([_found((0, 0.9, *BOX))], [_truth((0, *BOX), (2, *BOX))], 4)
    assert result.mean == pytest.approx(0.5)


def test_detections_in_a_crowd_are_neither_right_nor_wrong():
    found = [_found((0, 0.9, 200, 200, 220, 220), (0, 0.5, *BOX))]
    crowd = (0, 190, 190, 260, 260)
    assert average_precision(found, [_truth((0, *BOX), crowds=[crowd])], 1).mean == pytest.approx(1)
    assert average_precision(found, [_truth((0, *BOX))], 1).mean == pytest.approx(0.5)


def test_an_image_without_objects_is_right_if_nothing_is_found():
    found = [_found((0, 0.9, *BOX)), _found(), _found((0, 0.1, *BOX))]
    assert average_precision(found, [_truth((0, *BOX)), _truth(), _truth()], 1).per_image == pytest.approx([1, 1, 0])


@pytest.mark.parametrize("seed", range(5))
def test_resampled_images_score_as_a_data_set_of_their_copies(seed):
    rng = np.random.default_rng(seed)
    truths, found = zip(*(_random_image(rng) for _ in range(8)), strict=True)
    counts = rng.multinomial(8, np.full(8, 1 / 8), size=6)
    counts[0] = 1
    resampled = average_precision(found, truths, 3).resampled(counts)
    for drawn, value in zip(counts, resampled, strict=True):
        copies = np.repeat(np.arange(8), drawn)
        again = average_precision([found[i] for i in copies], [truths[i] for i in copies], 3)
        assert value == pytest.approx(again.mean)


def _random_image(rng):
    """Up to four objects in a row and perhaps a crowd, some of them found, and a few false alarms."""
    boxes = [(30 * n, 10, 30 * n + 20, 30) for n in range(rng.integers(0, 5))]
    objects = [(rng.integers(0, 3), *box) for box in boxes]
    shifts = rng.integers(0, 10, len(boxes))
    rows = [(kind, rng.random(), x + s, y, r + s, b) for (kind, x, y, r, b), s in zip(objects, shifts, strict=True)]
    rows += [(rng.integers(0, 3), rng.random(), 200, 10, 220, 30) for _ in range(rng.integers(0, 3))]
    crowds = [(0, 190, 0, 230, 40)] if rng.random() < 0.3 else []
    return _truth(*objects, crowds=crowds), _found(*sorted(rows, key=lambda row: -row[1]))

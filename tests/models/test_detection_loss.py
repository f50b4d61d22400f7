"""The loss is YOLOv5's, computed here once more cell by cell; the divergence knows when two networks agree."""

import math

import numpy as np
import pytest
import torch
from scipy.special import expit, xlogy

from pipeline.models.anchor_matching import match_anchors
from pipeline.models.detection_loss import DetectionLoss, complete_iou
from pipeline.models.yolov5 import ANCHORS, STRIDES, coco_anchors

CELLS = coco_anchors()
SIDE, CLASSES = 96, 3
ROWS = 3 * sum((SIDE // stride) ** 2 for stride in STRIDES)


@pytest.fixture
def loss():
    return DetectionLoss(CELLS)


def _outputs(images=2, seed=0, classes=CLASSES):
    return torch.randn(images, ROWS, 5 + classes, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor(
    [
        [[0, 0.51, 0.30, 0.40, 0.52], [2, 0.52, 0.31, 0.38, 0.50], [1, 0.02, 0.98, 0.10, 0.12]],
        [[2, 0.50, 0.50, 0.95, 0.90], [-1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]],
    ]
)


def _ciou(a, b):
    """Of two boxes (x, y, w, h)."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    w = max(0, min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2))
    h = max(0, min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2))
    iou = w * h / (aw * ah + bw * bh - w * h)
    hull_w = max(ax + aw / 2, bx + bw / 2) - min(ax - aw / 2, bx - bw / 2)
    hull_h = max(ay + ah / 2, by + bh / 2) - min(ay - ah / 2, by - bh / 2)
    v = 4 / math.pi**2 * (math.atan(aw / ah) - math.atan(bw / bh)) ** 2
    alpha = v / (1 - iou + v) if v else 0
    return iou - ((ax - bx) ** 2 + (ay - by) ** 2) / (hull_w**2 + hull_h**2) - alpha * v


def _bce(logit, target):
    return max(logit, 0) - logit * target + math.log1p(math.exp(-abs(logit)))


def _reference_loss(outputs, labels):
    """Every prediction of every cell asked whether it answers for every object."""
    box = objectness = kind = start = 0
    for stride, anchors, balance in zip(STRIDES, ANCHORS, (4.0, 1.0, 0.4), strict=True):
        cells = SIDE // stride
        box_terms, class_terms, objectness_terms = [], [], []
        for image in range(len(outputs)):
            for anchor, (wide, high) in enumerate(anchors):
                for row in range(cells):
                    for column in range(cells):
                        logits = outputs[image, start + (anchor * cells + row) * cells + column].tolist()
                        x, y, w, h = (float(expit(value)) * 2 for value in logits[:4])
                        predicted = (x - 0.5 + column) * stride, (y - 0.5 + row) * stride, w * w * wide, h * h * high
                        wanted = 0.0
                        for number, *shares in labels[image].tolist():
                            cx, cy, width, height = (share * SIDE for share in shares)
                            if number < 0 or max(width / wide, wide / width, height / high, high / height) >= 4:
                                continue
                            # Its own cell, or one whose edge is within half a cell of the object's centre.
                            dx, dy = cx / stride - column, cy / stride - row
                            own = 0 <= dx < 1 and 0 <= dy < 1
                            beside = 0 <= dy < 1 and (-0.5 < dx < 0 or 1 <= dx < 1.5)
                            above = 0 <= dx < 1 and (-0.5 < dy < 0 or 1 <= dy < 1.5)
                            if not (own or beside or above):
                                continue
                            ciou = _ciou(predicted, (cx, cy, width, height))
                            box_terms.append(1 - ciou)
                            wanted = max(wanted, ciou)
                            class_terms += [_bce(logit, n == number) for n, logit in enumerate(logits[5:])]
                        objectness_terms.append(_bce(logits[4], wanted))
        start += 3 * cells * cells
        box += np.mean(box_terms) if box_terms else 0
        kind += np.mean(class_terms) if class_terms else 0
        objectness += balance * np.mean(objectness_terms)
    return 0.05 * box + (SIDE / 640) ** 2 * objectness + 0.5 * CLASSES / 80 * kind


def test_the_loss_is_that_of_every_cell_and_object(loss):
    outputs = _outputs()
    assert float(loss.task(outputs, LABELS)) == pytest.approx(_reference_loss(outputs, LABELS), rel=1e-5)


def test_images_without_objects_have_only_objectness(loss):
    outputs, none = _outputs(), torch.zeros(2, 0, 5)
    assert float(loss.task(outputs, none)) == pytest.approx(_reference_loss(outputs, none), rel=1e-5)


def test_an_object_is_matched_in_its_cell_and_the_two_nearest():
    box = torch.tensor([[[1, 3.2 / 12, 5.6 / 12, 16 / 96, 30 / 96], [-1, 0, 0, 0, 0]]])
    matches = match_anchors(box, CELLS[0], 12)
    places = set(zip(matches.columns.tolist(), matches.rows.tolist(), matches.anchors.tolist(), strict=True))
    assert places == {(x, y, a) for x, y in ((3, 5), (2, 5), (3, 6)) for a in (0, 1, 2)}
    assert set(matches.classes.tolist()) == {1}
    corners = torch.stack([matches.columns, matches.rows], 1)
    assert torch.allclose(matches.centres + corners, torch.tensor([3.2, 5.6]))
    assert torch.allclose(matches.sizes, torch.tensor([2.0, 3.75]))


def test_boxes_at_the_edge_have_no_neighbours_outside():
    corner = torch.tensor([[[0, 0.3 / 12, 11.9 / 12, 16 / 96, 30 / 96]]])
    matches = match_anchors(corner, CELLS[0], 12)
    assert set(zip(matches.columns.tolist(), matches.rows.tolist(), strict=True)) == {(0, 11)}


@pytest.mark.parametrize("box", [(5, 5, 4, 2), (6, 5, 4, 2), (5, 5, 2, 4), (40, 40, 4, 4), (5.5, 4, 1, 9)])
def test_complete_iou_of_two_boxes(box):
    first, second = torch.tensor([5.0, 5, 4, 2]), torch.tensor(box, dtype=torch.float32)
    found = complete_iou(first[:2], first[2:], second[:2], second[2:])
    assert float(found) == pytest.approx(_ciou((5, 5, 4, 2), box), abs=1e-5)


def test_training_learns_to_find_the_objects(loss):
    outputs = (_outputs() - torch.tensor([0, 0, 0, 0, 4, 0, 0, 0])).requires_grad_()
    optimizer = torch.optim.Adam([outputs], 0.3)
    before = loss.found(outputs, LABELS)
    for _ in range(60):
        optimizer.zero_grad()
        loss.task(outputs, LABELS).backward()
        optimizer.step()
    # The first two objects of the first image share most cells and differ in their class: one of them may be missed.
    assert float(loss.found(outputs, LABELS).min()) > 0.6 > float(before.max())


def test_equal_outputs_do_not_diverge_and_others_do_so_the_more_the_farther(loss):
    outputs, other = _outputs(seed=1), _outputs(seed=2)
    assert loss.divergence(outputs, outputs) == pytest.approx(torch.zeros(2), abs=1e-5)
    near, far = loss.divergence(outputs + 0.05 * other, outputs), loss.divergence(outputs + 0.5 * other, outputs)
    assert torch.all((near > 0) & (far > 5 * near))


def test_where_no_object_is_seen_only_objectness_counts(loss):
    dense, other = _outputs(1), _outputs(1, seed=3)
    dense[..., 4] = -30
    other[..., 4] = -2
    expected = ROWS * math.log1p(math.exp(-2))
    assert float(loss.divergence(other, dense)) == pytest.approx(expected, rel=1e-4)


def test_classes_weigh_as_much_as_the_object_that_the_reference_sees(loss):
    dense = torch.zeros(1, ROWS, 5 + CLASSES)
    dense[..., 4] = -30
    dense[0, 17, 4] = 30
    other = dense.clone()
    other[0, 17, 5] = 1.5
    p, q = 0.5, float(expit(1.5))
    expected = (xlogy(p, p / q) + xlogy(1 - p, (1 - p) / (1 - q))) / 2
    assert float(loss.divergence(other, dense)) == pytest.approx(expected, rel=1e-4)
    other[0, 17, 5], other[0, 17, 2] = 0, 1.0
    x, y, (wide, high), w = 0.5 * 2 - 0.5, 0.5, ANCHORS[0][0], (2 * float(expit(1.0))) ** 2
    apart = 1 - _ciou((x, y, w * wide, high), (x, y, wide, high))
    assert float(loss.divergence(other, dense)) == pytest.approx(apart / 2, rel=1e-4)


def test_half_precision_outputs_are_judged_in_single(loss):
    outputs = _outputs().bfloat16()
    assert loss.task(outputs, LABELS).dtype == torch.float32
    assert torch.isfinite(loss.divergence(outputs, _outputs(seed=5).bfloat16())).all()


def test_nothing_to_find_counts_as_found(loss):
    assert loss.found(_outputs(), torch.full((2, 1, 5), -1.0)).tolist() == [1, 1]


def test_one_class_has_no_class_loss(loss):
    one, labels = _outputs(classes=1), LABELS.clone()
    labels[..., 0] = labels[..., 0].clamp(-1, 0)
    changed = one.clone()
    changed[..., 5] += 3
    assert float(loss.task(one, labels)) == float(loss.task(changed, labels))

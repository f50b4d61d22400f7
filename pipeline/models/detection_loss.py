"""What detection networks are trained and calibrated by: YOLOv5's loss, and the distance of two networks' outputs."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.models.anchor_matching import Matches, match_anchors
from pipeline.models.yolov5 import STRIDES, Grid
from pipeline.scoring.nms import BOX_VALUES

BOX_GAIN, OBJECTNESS_GAIN, CLASS_GAIN = 0.05, 1.0, 0.5
"""Shares of the three losses for 80 classes and 640 pixels."""

BALANCE = (4.0, 1.0, 0.4)
"""Weights of the grids' objectness, the finest first."""

EPSILON = 1e-7


class DetectionLoss:
    """Losses of outputs [n, anchors, 5 + classes], logits in the order that `pipeline.models.yolov5.Detect` gives.

    Args:
        anchors: [grids, anchors, 2] width and height in cells.
    """

    def __init__(self, anchors: Tensor) -> None:
        self._anchors = anchors

    def task(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """YOLOv5's loss, averaged over the batch.

        Args:
            outputs: [n, anchors, 5 + classes] logits.
            labels: [n, boxes, 5] class, centre x, centre y, width and height as shares of the image; class -1 is
                padding.
        """
        anchors, side = self._anchors.to(outputs.device), self._side(outputs)
        box = objectness = kind = outputs.new_zeros((), dtype=torch.float32)
        for grid, sizes, balance in zip(self._grids(outputs.float()), anchors, BALANCE, strict=True):
            matches = match_anchors(labels, sizes, grid.shape[2])
            predicted = grid[matches.images, matches.anchors, matches.rows, matches.columns]
            overlaps = _matched_overlaps(predicted, matches, sizes)
            if len(overlaps):
                box = box + (1 - overlaps).mean()
                kind = kind + _class_loss(predicted[:, BOX_VALUES:], matches.classes)
            wanted = _wanted_objectness(grid, matches, overlaps)
            objectness = objectness + balance * functional.binary_cross_entropy_with_logits(grid[..., 4], wanted)
        classes = outputs.shape[2] - BOX_VALUES
        share = 3 / len(anchors)
        return share * (
            BOX_GAIN * box + OBJECTNESS_GAIN * (side / 640) ** 2 * objectness + CLASS_GAIN * classes / 80 * kind
        )

    def divergence(self, outputs: Tensor, reference: Tensor) -> Tensor:
        """[n] how far outputs are from another network's, 0 where they are the same.

        Kullback-Leibler divergence of the objectness, and where the reference sees an object also that of the
        classes and 1 - CIoU of the boxes, as a sum for every object that the reference sees.
        """
        outputs, reference = outputs.float(), reference.float()
        confidence = reference[..., 4].sigmoid()
        unlike = _bernoulli_divergence(outputs[..., 4:], reference[..., 4:])
        (centres, sizes), (dense_centres, dense_sizes) = self._boxes(outputs), self._boxes(reference)
        apart = 1 - complete_iou(centres, sizes, dense_centres, dense_sizes)
        total = unlike[..., 0] + confidence * (unlike[..., 1:].sum(2) + apart)
        return (total.sum(1) / (1 + confidence.sum(1))).clamp_min(0)

    def found(self, outputs: Tensor, labels: Tensor, confidence: float = 0.25, overlap: float = 0.5) -> Tensor:
        """[n] share of the objects that a confident prediction of their class overlaps; 1 where there are none."""
        outputs = outputs.detach().float()
        best, classes = outputs[..., BOX_VALUES:].sigmoid().max(2)
        sure = outputs[..., 4].sigmoid() * best > confidence
        centres, sizes = self._boxes(outputs)
        side, shares = self._side(outputs), []
        for image, rows in enumerate(labels):
            objects, chosen = rows[rows[:, 0] >= 0], sure[image]
            middles, spans = objects[:, None, 1:3] * side, objects[:, None, 3:] * side
            overlaps = _iou(middles, spans, centres[image, chosen], sizes[image, chosen])
            hits = (overlaps > overlap) & (objects[:, :1] == classes[image, chosen])
            shares.append(hits.any(1).float().mean() if len(objects) else outputs.new_ones(()))
        return torch.stack(shares)

    def _side(self, outputs: Tensor) -> int:
        """Pixels of the square images that there are so many predictions for."""
        coarsest = STRIDES[-1]
        cells = sum((coarsest // stride) ** 2 for stride in STRIDES) * self._anchors.shape[1]
        return coarsest * math.isqrt(outputs.shape[1] // cells)

    def _grids(self, outputs: Tensor) -> Iterator[Tensor]:
        """[n, anchors, rows, columns, 5 + classes] of every grid."""
        start, anchors, side = 0, self._anchors.shape[1], self._side(outputs)
        for stride in STRIDES:
            cells = side // stride
            end = start + anchors * cells**2
            yield outputs[:, start:end].reshape(len(outputs), anchors, cells, cells, -1)
            start = end

    def _boxes(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and sizes in pixels, [n, anchors, 2] each."""
        side = self._side(outputs)
        return Grid(self._anchors.to(outputs.device), (side, side)).boxes(outputs[..., :4].sigmoid())


def complete_iou(centres: Tensor, sizes: Tensor, other_centres: Tensor, other_sizes: Tensor) -> Tensor:
    """[...] CIoU of boxes [..., 2] with others (Zheng et al. 2020), between -1.5 and 1.

    Intersection over union, less the distance of the centres and the difference of the aspects.
    """
    iou = _iou(centres, sizes, other_centres, other_sizes)
    left = torch.minimum(centres - sizes / 2, other_centres - other_sizes / 2)
    right = torch.maximum(centres + sizes / 2, other_centres + other_sizes / 2)
    diagonal = (right - left).square().sum(-1) + EPSILON
    distance = (centres - other_centres).square().sum(-1)
    aspect = 4 / math.pi**2 * (_angle(other_sizes) - _angle(sizes)).square()
    with torch.no_grad():
        weight = aspect / (aspect - iou + 1 + EPSILON)
    return iou - distance / diagonal - weight * aspect


def _iou(centres: Tensor, sizes: Tensor, other_centres: Tensor, other_sizes: Tensor) -> Tensor:
    first = torch.maximum(centres - sizes / 2, other_centres - other_sizes / 2)
    last = torch.minimum(centres + sizes / 2, other_centres + other_sizes / 2)
    common = (last - first).clamp_min(0).prod(-1)
    return common / (sizes.prod(-1) + other_sizes.prod(-1) - common + EPSILON)


def _angle(sizes: Tensor) -> Tensor:
    return torch.atan(sizes[..., 0] / (sizes[..., 1] + EPSILON))


def _matched_overlaps(predicted: Tensor, matches: Matches, anchors: Tensor) -> Tensor:
    """[k] CIoU of matched predictions [k, 5 + classes] with their objects."""
    values = predicted[:, :4].sigmoid() * 2
    return complete_iou(
        values[:, :2] - 0.5, values[:, 2:].square() * anchors[matches.anchors], matches.centres, matches.sizes
    )


def _class_loss(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy of every class by itself; nothing where there is but one."""
    if logits.shape[1] == 1:
        return logits.new_zeros(())
    wanted = functional.one_hot(classes, logits.shape[1]).float()
    return functional.binary_cross_entropy_with_logits(logits, wanted)


def _wanted_objectness(grid: Tensor, matches: Matches, overlaps: Tensor) -> Tensor:
    """[n, anchors, rows, columns] how well the box of each prediction fits its object, the best of several."""
    wanted = torch.zeros_like(grid[..., 4])
    _, anchors, rows, columns = wanted.shape
    place = ((matches.images * anchors + matches.anchors) * rows + matches.rows) * columns + matches.columns
    return wanted.flatten().scatter_reduce(0, place, overlaps.detach().clamp_min(0), "amax").view_as(wanted)


def _bernoulli_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference ‖ outputs) of every probability by itself."""
    probability = reference.sigmoid()
    cross = functional.binary_cross_entropy_with_logits(logits, probability, reduction="none")
    return cross - functional.binary_cross_entropy_with_logits(reference, probability, reduction="none")

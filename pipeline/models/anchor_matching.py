"""Which predictions of YOLOv5 answer for which objects."""

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST_RATIO = 4.0
"""An anchor fits a box whose width and height are both within this factor of its own."""

_SHIFTS = ((0.0, 0.0), (-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5))


@dataclass(frozen=True, slots=True)
class Matches:
    """Pairs of a prediction on one grid and an object that it should find.

    Args:
        images: [k] number of the image in its batch.
        anchors: [k] number of the anchor.
        rows: [k] cell's y.
        columns: [k] cell's x.
        classes: [k] of the object.
        centres: [k, 2] of the object, in cells from the cell's upper left corner.
        sizes: [k, 2] width and height of the object in cells.
    """

    images: Tensor
    anchors: Tensor
    rows: Tensor
    columns: Tensor
    classes: Tensor
    centres: Tensor
    sizes: Tensor


def match_anchors(labels: Tensor, anchors: Tensor, cells: int) -> Matches:
    """Every anchor that fits an object's shape, in the object's cell and the two cells nearest to its centre.

    Args:
        labels: [n, boxes, 5] class, centre x, centre y, width and height as shares of the image; class -1 is padding.
        anchors: [anchors, 2] width and height in cells.
        cells: of the grid, on each side.
    """
    images, places = (labels[..., 0] >= 0).nonzero(as_tuple=True)
    boxes = labels[images, places]
    ratios = boxes[:, None, 3:] * cells / anchors
    objects, fitting = (torch.maximum(ratios, 1 / ratios).amax(2) < LARGEST_RATIO).nonzero(as_tuple=True)
    images, boxes = images[objects], boxes[objects]
    centres, sizes = boxes[:, 1:3] * cells, boxes[:, 3:] * cells
    shifts = torch.tensor(_SHIFTS, device=labels.device)
    chosen, which = _near(centres, cells).nonzero(as_tuple=True)
    corners = (centres[chosen] + shifts[which]).floor().clamp(0, cells - 1)
    return Matches(
        images=images[chosen],
        anchors=fitting[chosen],
        rows=corners[:, 1].long(),
        columns=corners[:, 0].long(),
        classes=boxes[chosen, 0].long(),
        centres=centres[chosen] - corners,
        sizes=sizes[chosen],
    )


def _near(centres: Tensor, cells: int) -> Tensor:
    """[k, 5] whether the cell that each shift leads to answers for a centre [k, 2]: its own and inner neighbours."""
    before = (centres % 1 < 0.5) & (centres > 1)
    after = (centres % 1 > 0.5) & (cells - centres > 1)
    own = torch.ones_like(before[:, 0])
    return torch.stack([own, before[:, 0], after[:, 0], before[:, 1], after[:, 1]], 1)

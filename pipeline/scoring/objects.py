"""Object detection: are the boxes that a network finds those of the objects?"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Truth
from pipeline.certification.accuracy import Score
from pipeline.scoring.average_precision import ImageTruth, average_precision
from pipeline.scoring.nms import BOX_VALUES, Detections, find_detections
from targets.errors import ConfigError


class ObjectScorer:
    """Mean average precision; implements `pipeline.scoring.base.Scorer`."""

    keys: Mapping[str, str] = {
        "objects": "[n, boxes, 5] class, left, top, right and bottom in pixels of the input, class -1 for no box",
        "crowds": "[n, boxes, 5] groups in which detections are neither right nor wrong",
        "regions": "[n, 4] left, top, right and bottom of the picture in the input",
    }
    optional: frozenset[str] = frozenset({"crowds", "regions"})

    def problem(self, truth: Truth, rows: int) -> str | None:
        """Boxes are numbers, five each."""
        kinds = {"objects": (3, rows, 5), "crowds": (3, rows, 5), "regions": (2, rows, 4)}
        for name, array in truth.items():
            fits = array.ndim > 1 and (array.ndim, array.shape[0], array.shape[-1]) == kinds[name]
            if not fits or not np.issubdtype(array.dtype, np.number) or not np.isfinite(array).all():
                return f"{rows} inputs and {name} {array.shape} {array.dtype}"
        return None if (truth["objects"][..., 0] >= 0).any() else "no object at all"

    def score(self, outputs: Iterable[NDArray[np.float32]], truth: Truth, metric: str) -> Score:
        """Mean average precision of outputs [k, anchors, 5 + classes] over the overlaps 0.5 to 0.95.

        That of every image by itself says which are hard.

        Raises:
            ConfigError: the truth has more classes than the network, or pycocotools is not installed.
        """
        found: list[Detections] = []
        classes = 0
        for part in outputs:
            classes = part.shape[-1] - BOX_VALUES
            found += [find_detections(one) for one in part]
        objects = truth["objects"]
        if (highest := int(objects[..., 0].max())) >= classes:
            raise ConfigError(
                f"The right answers have a class {highest}, the network has the classes 0 to {classes - 1}."
            )
        crowds = truth.get("crowds", objects[:, :0])
        if (regions := truth.get("regions")) is not None:
            found = [_clip(some, region) for some, region in zip(found, regions, strict=True)]
        truths = [ImageTruth(_boxes(some), _boxes(groups)) for some, groups in zip(objects, crowds, strict=True)]
        judged = average_precision(found, truths, classes)
        return Score(metric, judged.mean, judged.per_image, {"mAP@.5": judged.mean_50}, judged.resampled)


def _clip(found: Detections, region: NDArray[np.float64]) -> Detections:
    """Boxes cut off at the edges of the picture."""
    corners = found.corners.clip(np.tile(region[:2], 2), np.tile(region[2:], 2))
    return Detections(corners, found.scores, found.classes)


def _boxes(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """[k, 5] of rows that are no padding."""
    return rows[rows[:, 0] >= 0].astype(np.float64)

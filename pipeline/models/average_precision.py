"""Mean average precision of detections, as COCO defines it, by COCO's own program."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.models.nms import Detections


@dataclass(frozen=True, slots=True)
class Truth:
    """What is in one image.

    Args:
        objects: [k, 5] class, left, top, right and bottom in pixels of the input.
        crowds: [k, 5] likewise, around groups in which detections are neither right nor wrong.
    """

    objects: NDArray[np.float64]
    crowds: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """How good detections are, each between 0 and 1.

    Args:
        mean: over classes and overlaps from 0.5 to 0.95, COCO's mAP@.5:.95.
        mean_50: at the overlap 0.5 alone, mAP@.5.
        per_image: [n] the same as ``mean`` for every image by itself; 1 where nothing is and nothing is found.
    """

    mean: float
    mean_50: float
    per_image: NDArray[np.float64]


def average_precision(found: Sequence[Detections], truths: Sequence[Truth], classes: int) -> AveragePrecision:
    """Compare detections with the truth, image by image in the same order.

    Overlaps are ratios of areas, so that it does not matter in which pixels boxes are measured.

    Args:
        found: detections of every image.
        truths: what is in every image.
        classes: number of classes.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it talks
        truth, detected = COCO(), COCO()
        for index, content in ((truth, _truth_records(truths)), (detected, _found_records(found))):
            index.dataset = {
                "images": [{"id": image} for image in range(len(truths))],
                "categories": [{"id": number} for number in range(classes)],
                "annotations": [{"id": number, **record} for number, record in enumerate(content, start=1)],
            }
            index.createIndex()
        judge = COCOeval(truth, detected, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl = judge.params.areaRng[:1], ["all"]
        judge.params.maxDets = judge.params.maxDets[-1:]
        judge.evaluate()
        judge.accumulate()
        by_overlap = judge.eval["precision"]
        per_image = np.array(list(_per_image(judge, [len(some.scores) for some in found])))
    return AveragePrecision(_mean(by_overlap), _mean(by_overlap[:1]), per_image)


def _truth_records(truths: Sequence[Truth]) -> Iterator[dict[str, Any]]:
    for image, truth in enumerate(truths):
        for rows, crowd in ((truth.objects, 0), (truth.crowds, 1)):
            for kind, *corners in rows.tolist():
                yield _record(image, int(kind), corners) | {"iscrowd": crowd}


def _found_records(found: Sequence[Detections]) -> Iterator[dict[str, Any]]:
    for image, some in enumerate(found):
        for kind, score, corners in zip(some.classes, some.scores, some.corners.tolist(), strict=True):
            yield _record(image, int(kind), corners) | {"score": float(score), "iscrowd": 0}


def _record(image: int, kind: int, corners: Sequence[float]) -> dict[str, Any]:
    left, top, right, bottom = corners
    width, height = right - left, bottom - top
    return {"image_id": image, "category_id": kind, "bbox": [left, top, width, height], "area": width * height}


def _mean(precision: NDArray[np.float64], otherwise: float = 0.0) -> float:
    """Of what is known: COCO writes -1 for classes that do not occur."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else otherwise


def _per_image(judge: Any, detections: Sequence[int]) -> Iterator[float]:
    """The mean average precision of each image, from comparisons that were made already."""
    compared, images = judge.evalImgs, len(detections)
    for image, count in enumerate(detections):
        judge.evalImgs = compared[image::images]  # class by class, and image by image in each
        judge._paramsEval.imgIds = judge.params.imgIds = [image]
        judge.accumulate()
        yield _mean(judge.eval["precision"], otherwise=float(count == 0))

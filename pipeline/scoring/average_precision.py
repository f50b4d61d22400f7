"""Mean average precision of detections, as COCO defines it, by COCO's own program."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.certification.accuracy import Resampled
from pipeline.scoring.nms import Detections
from targets.errors import ConfigError

RECALLS = np.linspace(0, 1, 101)
"""At which COCO reads precision."""


@dataclass(frozen=True, slots=True)
class ImageTruth:
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
        resampled: the same as ``mean`` [draws] of images drawn as often as counts [draws, n] say.
    """

    mean: float
    mean_50: float
    per_image: NDArray[np.float64]
    resampled: Resampled


def average_precision(found: Sequence[Detections], truths: Sequence[ImageTruth], classes: int) -> AveragePrecision:
    """Compare detections with the truth, image by image in the same order.

    Overlaps are ratios of areas, so that it does not matter in which pixels boxes are measured.

    Args:
        found: detections of every image.
        truths: what is in every image.
        classes: number of classes.

    Raises:
        ConfigError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        raise ConfigError("Detections are scored by the package pycocotools: pip install pycocotools") from None

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
        comparisons = tuple(_comparisons(judge.evalImgs, len(truths)))
        per_image = np.array(list(_per_image(judge, [len(some.scores) for some in found])))
    return AveragePrecision(_mean(by_overlap), _mean(by_overlap[:1]), per_image, partial(_resampled, comparisons))


def _truth_records(truths: Sequence[ImageTruth]) -> Iterator[dict[str, Any]]:
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


@dataclass(frozen=True, slots=True)
class _Comparisons:
    """Detections of one class over all images, the most confident first, and what they were found to be.

    Args:
        objects: [n] that there are in each image.
        images: [k] where each detection is.
        right: [overlaps, k] whether it is one of the objects.
        wrong: [overlaps, k] whether it is none; those in crowds are neither.
    """

    objects: NDArray[np.int64]
    images: NDArray[np.int64]
    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]


def _comparisons(compared: Sequence[dict[str, Any] | None], images: int) -> Iterator[_Comparisons]:
    """Each class's, from COCO's records class by class, and image by image in each."""
    for start in range(0, len(compared), images):
        records = [(number, record) for number, record in enumerate(compared[start : start + images]) if record]
        objects = np.zeros(images, np.int64)
        for number, record in records:
            objects[number] = np.count_nonzero(np.asarray(record["gtIgnore"]) == 0)
        if not objects.any():
            continue
        scores = np.concatenate([record["dtScores"] for _, record in records])
        order = np.argsort(-scores, kind="stable")
        where = np.concatenate([np.full(len(record["dtScores"]), number) for number, record in records])[order]
        matched = np.concatenate([record["dtMatches"] for _, record in records], axis=1)[:, order] > 0
        counts = np.concatenate([record["dtIgnore"] for _, record in records], axis=1)[:, order] == 0
        yield _Comparisons(objects, where.astype(np.int64), matched & counts, ~matched & counts)


def _resampled(comparisons: Sequence[_Comparisons], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean average precision [draws] where each image counts as often as ``counts`` [draws, n] says.

    The same as COCO's of a data set with so many copies of each image: a copy of a right detection raises precision
    and recall, and a copy of a wrong one only lowers precision, so that the best precision from any recall on is
    reached at the last copy of a right one.
    """
    total, known = np.zeros(len(counts)), np.zeros(len(counts))
    for one in comparisons:
        objects = counts @ one.objects
        copies = counts[:, one.images]
        for right, wrong in zip(one.right, one.wrong, strict=True):
            places = np.flatnonzero(right)
            total += _precision(copies[:, places], (copies * wrong).cumsum(axis=1)[:, places], objects)
        known += len(one.right) * (objects > 0)
    return np.divide(total, known, out=np.zeros(len(counts)), where=known > 0)


def _precision(right: NDArray[np.int64], wrong: NDArray[np.int64], objects: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average precision [draws]; 0 where there are no objects.

    Args:
        right: [draws, k] copies of the right detections, the most confident first.
        wrong: [draws, k] copies of all wrong detections that are more confident than each of them.
        objects: [draws] that there are.
    """
    if not right.shape[1]:
        return np.zeros(len(right))
    found = right.cumsum(axis=1)
    precision = found / np.maximum(found + wrong, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, found / np.maximum(objects, 1)[:, None], side="right")
    reached[objects == 0] = 0
    newly = np.diff(reached, axis=1, prepend=0)
    return (newly * best).sum(axis=1) / len(RECALLS)  # type: ignore[no-any-return]

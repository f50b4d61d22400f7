"""COCO's annotations: one JSON file for every split, and a folder of images."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from pathlib import PurePosixPath

from pydantic import BaseModel, PositiveInt, ValidationError

from calibration.annotations import LAYOUTS, AnnotatedImage, Annotations, boxes_of, require_images, require_objects
from calibration.errors import DataError
from calibration.sources import Source

Rows = defaultdict[tuple[int | str, bool], list[tuple[float, ...]]]

_NAME = re.compile(r"instances_(train|val)[^/]*\.json")


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: PositiveInt
    height: PositiveInt


class _Annotation(BaseModel):
    id: int | str | None = None
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Category(BaseModel):
    id: int
    name: str


class _Instances(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def find_instances(members: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files with annotations to train on and to validate on."""
    matches = [(member, _NAME.fullmatch(PurePosixPath(member).name)) for member in members]
    train, val = ([m for m, match in matches if match and match[1] == split] for split in ("train", "val"))
    return train, val


def read_coco(source: Source, members: Sequence[str]) -> tuple[Annotations, Annotations]:
    """The training and validation splits.

    Classes are the categories in the order of their ids. Images are looked for in ``images/``, ``images/<split>/``
    and ``<split>/`` (of ``instances_<split>.json``), and beside the annotations.

    Args:
        source: of the files.
        members: paths of all of them.

    Raises:
        DataError: a split is missing or doubtful, or its annotations contradict themselves or the files.
    """
    chosen = []
    for split, found in zip(("train", "val"), find_instances(members), strict=True):
        if len(found) != 1:
            raise DataError(f"{source.root} must have one instances_{split}*.json, not {found or 'none'}. {LAYOUTS}")
        chosen.append(found[0])
    train, val = (_read_split(source, frozenset(members), member) for member in chosen)
    if train.classes != val.classes:
        only = sorted(set(train.classes) ^ set(val.classes))
        raise DataError(
            f"{source.root}: {chosen[0]} and {chosen[1]} must have the same categories with the same ids; "
            f"in only one of them: {only[:8]}"
        )
    return train, val


def _read_split(source: Source, members: Set[str], annotations: str) -> Annotations:
    instances = _parse(source, annotations)
    files = {image.id: _find_image(members, annotations, image.file_name) for image in instances.images}
    missing = [image.file_name for image in instances.images if files[image.id] is None]
    require_images(source.root, missing, annotations)
    categories = sorted(instances.categories, key=lambda category: category.id)
    numbers = {category.id: number for number, category in enumerate(categories)}
    try:
        rows = _rows(instances, numbers)
    except DataError as error:
        raise DataError(f"{source.root}: {annotations}: {error}") from None
    images = [
        AnnotatedImage(
            files[image.id] or "",
            (image.width, image.height),
            boxes_of(rows[image.id, False]),
            boxes_of(rows[image.id, True]),
        )
        for image in instances.images
    ]
    require_objects(source.root, images, annotations)
    classes = tuple(category.name for category in categories)
    return Annotations(classes, tuple(sorted(images, key=lambda image: image.member)))


def _parse(source: Source, member: str) -> _Instances:
    try:
        return _Instances.model_validate_json(source.read(member))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{source.root}: {member} is not in COCO's format; {place}: {first['msg']}. It needs images "
            "(id, file_name, width, height), annotations (image_id, category_id, bbox) and categories (id, name)"
        ) from None


def _find_image(members: Set[str], annotations: str, name: str) -> str | None:
    """Where the image of that name is, going by where its annotations are; None if nowhere."""
    folder = PurePosixPath(annotations).parent
    root = folder.parent if folder.name == "annotations" else folder
    split = PurePosixPath(annotations).stem.removeprefix("instances_")
    for place in (root / "images", root / "images" / split, root / split, root):
        if (candidate := str(place / name)) in members:
            return candidate
    return None


def _rows(instances: _Instances, numbers: Mapping[int, int]) -> Rows:
    """Boxes by image and by whether they are crowds."""
    images = {image.id: image for image in instances.images}
    rows: Rows = defaultdict(list)
    for annotation in instances.annotations:
        what = f"annotation {annotation.id} of image {annotation.image_id}"
        if annotation.image_id not in images:
            raise DataError(f"{what}, but there is no such image in the file. Add the image or remove the annotation")
        if annotation.category_id not in numbers:
            raise DataError(
                f"{what} has the unknown category {annotation.category_id}. "
                "Add it to the file's categories, or correct the annotation"
            )
        image = images[annotation.image_id]
        x, y, width, height = annotation.bbox
        left, right = max(x, 0.0), min(x + width, image.width)
        top, bottom = max(y, 0.0), min(y + height, image.height)
        if not (left < right and top < bottom):
            raise DataError(
                f"{what} has the empty box {list(annotation.bbox)} (x, y, width, height) in {image.width}x"
                f"{image.height} pixels. Correct or remove it"
            )
        spans = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        shares = (value / side for value, side in zip(spans, 2 * (image.width, image.height), strict=True))
        rows[annotation.image_id, bool(annotation.iscrowd)].append((numbers[annotation.category_id], *shares))
    return rows

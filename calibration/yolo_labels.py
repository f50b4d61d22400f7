"""YOLO's annotations: a text file of boxes for every image, and a YAML file that names the classes."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from calibration.annotations import LAYOUTS, AnnotatedImage, Annotations, boxes_of, require_images, require_objects
from calibration.decoding import SUFFIXES, upright_size
from calibration.errors import DataError
from calibration.sources import Source
from calibration.yolo_layout import Images, find_layout


def find_labels(members: Sequence[str]) -> list[str]:
    """The label files."""
    return [m for m in members if m.endswith(".txt") and "labels" in PurePosixPath(m).parts[:-1]]


def read_yolo_labels(source: Source, members: Sequence[str]) -> tuple[Annotations, Annotations]:
    """The training and validation splits.

    A box is a line ``class x y width height``, the centre and the size being shares of the image's; more numbers are
    the corners of an outline. An image without a label file has no objects.

    Args:
        source: of the files.
        members: paths of all of them.

    Raises:
        DataError: a split is missing, labels are of no image, or a line makes no sense.
    """
    layout = find_layout(source, members)
    read = [_read_split(source, members, place, layout.names) for place in (layout.train, layout.val)]
    if both := {image.member for image in read[0]} & {image.member for image in read[1]}:
        raise DataError(
            f"{source.root}: {len(both)} images are in train and in val, such as {min(both)}. "
            "Evaluation needs images of its own: split them"
        )
    highest = max(int(image.boxes[:, 0].max(initial=0)) for images in read for image in images)
    names = layout.names or tuple(str(number) for number in range(highest + 1))
    train, val = (Annotations(names, tuple(images)) for images in read)
    return train, val


def _read_split(
    source: Source, members: Sequence[str], place: Images, names: Sequence[str] | None
) -> list[AnnotatedImage]:
    files = [member for member in members if member in place and member.lower().endswith(SUFFIXES)]
    if not files:
        raise DataError(f"{source.root}: {place} has no images ({', '.join(SUFFIXES)}). {LAYOUTS}")
    labels = {_label_of(file) for file in files}
    label_folders = tuple(_label_of(folder + "x").removesuffix("x.txt") for folder in place.folders)
    texts = (m for m in members if m in labels or (m.startswith(label_folders) and m.endswith(".txt")))
    present = [text for text in texts if PurePosixPath(text).name != "classes.txt"]  # some tools write the names there
    where = ", ".join(label_folders) or str(place)
    require_images(source.root, [label for label in present if label not in labels], where)

    def read(file: str) -> AnnotatedImage:
        rows = _rows(source, _label_of(file), names) if _label_of(file) in existing else []
        return AnnotatedImage(file, upright_size(source, file), boxes_of(rows), boxes_of([]))

    existing = frozenset(present)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = list(pool.map(read, files))
    require_objects(source.root, images, where)
    return images


def _label_of(image: str) -> str:
    """The label file of an image: ``labels`` in the place of the path's last ``images``, and ``.txt``."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return "/".join(parts)


def _rows(source: Source, member: str, names: Sequence[str] | None) -> list[tuple[float, ...]]:
    """The boxes of one label file, clipped to the image."""
    rows = []
    for number, line in enumerate(source.read(member).decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line.split(), names))
        except ValueError as error:
            raise DataError(f"{source.root}: {member}, line {number}: {error}. Correct or remove the line") from None
    return rows


def _row(values: Sequence[str], names: Sequence[str] | None) -> tuple[float, ...]:
    """Class, centre x, centre y, width and height of one line."""
    kind, *numbers = (float(value) for value in values)
    if len(numbers) < 4 or (len(numbers) > 4 and len(numbers) % 2):
        raise ValueError(f"{len(values)} numbers are no box: class, x, y, width and height are needed")
    if kind < 0 or not kind.is_integer() or (names is not None and kind >= len(names)):
        known = "0 and up" if names is None else f"0 to {len(names) - 1}, as data.yaml names them"
        raise ValueError(f"unknown class {values[0]}, there are {known}")
    if not all(0 <= number <= 1 for number in numbers):
        raise ValueError("x, y, width and height must be shares of the image's width and height, between 0 and 1")
    if len(numbers) > 4:
        left, right, top, bottom = min(numbers[::2]), max(numbers[::2]), min(numbers[1::2]), max(numbers[1::2])
    else:
        x, y, width, height = numbers
        left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    left, right, top, bottom = max(left, 0.0), min(right, 1.0), max(top, 0.0), min(bottom, 1.0)
    if not (left < right and top < bottom):
        raise ValueError("the box is empty, its width and height must be positive")
    return kind, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top

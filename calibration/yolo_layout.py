"""Where a data set in YOLO's layout keeps its images: what data.yaml says, or the usual folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from calibration.annotations import LAYOUTS
from calibration.errors import DataError
from calibration.sources import Source

_VALIDATION = ("val", "valid", "validation", "test")


@dataclass(frozen=True, slots=True)
class YoloLayout:
    """Where a data set's images are, and what its classes are called.

    Args:
        train: folders of images to train on, with a slash behind them.
        val: the same for evaluation.
        names: of the classes in their order; None where nothing says them.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    names: tuple[str, ...] | None


def find_layout(source: Source, members: Sequence[str]) -> YoloLayout:
    """What the YAML file says, or the usual folders where there is none.

    Args:
        source: of the files.
        members: paths of all of them.

    Raises:
        DataError: there are no such folders, or the YAML file makes no sense.
    """
    found = [m for m in members if m.endswith((".yaml", ".yml")) and m.count("/") <= 1]
    named = [m for m in found if PurePosixPath(m).stem == "data"] or found
    if len(named) > 1:
        raise DataError(f"{source.root} has several YAML files, {named[:4]}: name the one of the data set data.yaml")
    if not named:
        train, val = _usual_folders(members, ("train",)), _usual_folders(members, _VALIDATION)
        if not (train and val):
            raise DataError(f"{source.root} has labels, but not images/train and images/val. {LAYOUTS}")
        return YoloLayout(train, val, None)
    try:
        content = yaml.safe_load(source.read(named[0]))
        names = content["names"]
        train, val = (_strings(content[key]) for key in ("train", "val"))
        root = PurePosixPath(named[0]).parent / str(content.get("path") or "")
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{source.root}: {named[0]} does not describe a data set ({type(error).__name__}: {error}). It needs "
            "train, val (folders of images) and names (of the classes, in order)"
        ) from None
    train, val = (
        tuple(_folder(source, members, named[0], root, entry) for entry in folders) for folders in (train, val)
    )
    return YoloLayout(train, val, _names(source, named[0], names))


def _strings(entry: Any) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(str(part) for part in entry)


def _usual_folders(members: Sequence[str], splits: Sequence[str]) -> tuple[str, ...]:
    for split in splits:
        for folder in (f"images/{split}/", f"{split}/images/"):
            if any(member.startswith(folder) for member in members):
                return (folder,)
    return ()


def _folder(source: Source, members: Sequence[str], file: str, root: PurePosixPath, entry: str) -> str:
    """The folder that a YAML file names, with a slash behind it.

    Such files are written on other machines: what leads out of the data is left away.
    """
    for place in (root / entry, PurePosixPath(file).parent / entry):
        inside = [part for part in place.parts if part not in ("..", "/")]
        folder = "".join(f"{part}/" for part in inside)
        if any(member.startswith(folder) for member in members):
            return folder
    raise DataError(f"{source.root}: {file} names the folder {entry}, which is not there. Correct it or add the images")


def _names(source: Source, file: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        return tuple(str(names[number]) for number in range(len(names)))
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    raise DataError(f"{source.root}: {file}: names must be a list, or a mapping from 0, 1, 2 … to names, not {names!r}")

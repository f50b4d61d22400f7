"""Where a data set in YOLO's layout keeps its images: what data.yaml says, or the usual folders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml

from calibration.annotations import LAYOUTS
from calibration.errors import DataError
from calibration.sources import Source

_VALIDATION = ("val", "valid", "validation", "test")


@dataclass(frozen=True, slots=True)
class Images:
    """Where a split's images are.

    Args:
        folders: with a slash behind them.
        files: that are listed one by one.
    """

    folders: tuple[str, ...]
    files: frozenset[str] = frozenset()

    def __contains__(self, member: str) -> bool:
        return member in self.files or member.startswith(self.folders)

    def __str__(self) -> str:
        return ", ".join(self.folders) or f"the list of {len(self.files)} files"


@dataclass(frozen=True, slots=True)
class YoloLayout:
    """Where a data set's images are, and what its classes are called.

    Args:
        train: images to train on.
        val: the same for evaluation.
        names: of the classes in their order; None where nothing says them.
    """

    train: Images
    val: Images
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
        return YoloLayout(Images(train), Images(val), None)
    try:
        content = yaml.safe_load(source.read(named[0]))
        names = content["names"]
        train, val = (_strings(content[key]) for key in ("train", "val"))
        root = PurePosixPath(named[0]).parent / str(content.get("path") or "")
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{source.root}: {named[0]} does not describe a data set ({type(error).__name__}: {error}). It needs "
            "train, val (folders of images, or text files that list them) and names (of the classes, in order)"
        ) from None
    train_images, val_images = (_images(source, members, named[0], root, entries) for entries in (train, val))
    return YoloLayout(train_images, val_images, _names(source, named[0], names))


def _images(source: Source, members: Sequence[str], file: str, root: PurePosixPath, entries: Sequence[str]) -> Images:
    """What the entries of a YAML file stand for."""
    lists = [entry for entry in entries if entry.endswith(".txt")]
    there = frozenset(members) if lists else frozenset()
    return Images(
        tuple(_folder(source, members, file, root, entry) for entry in entries if entry not in lists),
        frozenset(image for entry in lists for image in _listed(source, there, file, root, entry)),
    )


def _listed(source: Source, members: frozenset[str], file: str, root: PurePosixPath, entry: str) -> Iterator[str]:
    """The images of a text file, a path a line."""
    name = _found(members, entry, root, PurePosixPath(file).parent)
    if name is None:
        raise DataError(f"{source.root}: {file} names the list {entry}, which is not there")
    for line in filter(None, map(str.strip, source.read(name).decode(errors="replace").splitlines())):
        image = _found(members, line, root, PurePosixPath(name).parent)
        if image is None:
            raise DataError(f"{source.root}: {name} lists {line}, which is not there. Take it out or add the image")
        yield image


def _found(members: frozenset[str], path: str, *bases: PurePosixPath) -> str | None:
    """The member that a path means, written as it may be on another machine: relative to a base, or only its end."""
    inside = _inside(PurePosixPath(path))
    places = [[*_inside(base), *inside] for base in bases] + [inside[start:] for start in range(len(inside))]
    return next((place for place in map("/".join, places) if place in members), None)


def _inside(path: PurePosixPath) -> list[str]:
    """The parts of a path but for those that lead out of the data."""
    return [part for part in path.parts if part not in ("..", "/")]


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
        folder = "".join(f"{part}/" for part in _inside(place))
        if any(member.startswith(folder) for member in members):
            return folder
    raise DataError(f"{source.root}: {file} names the folder {entry}, which is not there. Correct it or add the images")


def _names(source: Source, file: str, names: Any) -> tuple[str, ...]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        return tuple(str(names[number]) for number in range(len(names)))
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    raise DataError(f"{source.root}: {file}: names must be a list, or a mapping from 0, 1, 2 … to names, not {names!r}")

"""Files of texts: which belong to which split, and the rows of tables."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from calibration.errors import DataError

Row = TypeVar("Row")

TRAIN = ("train",)
TEST = ("dev", "val", "test")
"""How names of files begin, the most wanted first: the labels of a public test set are often withheld."""
HELD_OUT = 0.25
"""Share of a single file that evaluation gets."""


@dataclass(frozen=True, slots=True)
class SplitFiles:
    """Files of the two splits; ``test`` is None where one file holds everything."""

    train: Path
    test: Path | None


def find_files(data: Path, suffixes: Sequence[str], what: str) -> SplitFiles:
    """The files of a data set.

    Args:
        data: one file, or a folder with ``train…`` and ``dev…`` (or ``val…``, ``test…``) in it.
        suffixes: of the files, such as ``.csv``.
        what: the files hold, for the message.

    Raises:
        DataError: there are no such files.
    """
    kinds = " or ".join(suffixes)
    wanted = f"Give --data a folder with train* and dev* ({kinds}), or one such file, of {what}"
    if data.is_file():
        if data.suffix.lower() not in suffixes:
            raise DataError(f"{data} is no {kinds} file. {wanted}")
        return SplitFiles(data, None)
    if not data.is_dir():
        raise DataError(f"There is no data at {data}. {wanted}")
    files = sorted(path for path in data.iterdir() if path.is_file() and path.suffix.lower() in suffixes)
    train, test = _first(files, TRAIN), _first(files, TEST)
    if train is None or test is None:
        if len(files) == 1:
            return SplitFiles(files[0], None)
        found = ", ".join(path.name for path in files[:8]) or f"no {kinds} file"
        raise DataError(f"{data} has {found}, but no pair of train* and dev*. {wanted}")
    return SplitFiles(train, test)


def held_out(keys: Iterable[str]) -> set[str]:
    """A quarter of the ``keys``, chosen by their hashes: the same whenever and in whatever order they are given.

    Raises:
        DataError: there are fewer than two keys.
    """
    ordered = sorted(set(keys), key=lambda key: hashlib.sha256(key.encode()).digest())
    if len(ordered) < 2:
        raise DataError("A single file is split in two, but everything in it is alike: give train* and dev* files")
    return set(ordered[: max(1, round(HELD_OUT * len(ordered)))])


def divide(rows: Sequence[Row], key: Callable[[Row], str]) -> tuple[list[Row], list[Row]]:
    """One file's rows as train and test, rows of one key together.

    Raises:
        DataError: there are fewer than two keys.
    """
    chosen = held_out(key(row) for row in rows)
    return [row for row in rows if key(row) not in chosen], [row for row in rows if key(row) in chosen]


def read_rows(path: Path) -> list[list[str]]:
    """Fields of every row that is not blank; ``.csv`` may quote them, ``.tsv`` separates them by tabs alone.

    Raises:
        DataError: the file cannot be read as UTF-8 text, has no rows, or its rows differ in length.
    """
    tabs = path.suffix.lower() == ".tsv"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.reader(file, strict=True)
            rows = [row for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table in UTF-8: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(rows[0]):
            separator = "tab" if tabs else "comma"
            raise DataError(
                f"{path}: row {number} has {len(row)} fields, the first has {len(rows[0])}. "
                f"Fields are separated by a {separator}" + ("" if tabs else "; quote those that contain one")
            )
    return rows


def _first(files: Sequence[Path], beginnings: Sequence[str]) -> Path | None:
    """The first file whose name begins in one of these ways, in the order of the ways."""
    matches = (path for start in beginnings for path in files if path.name.lower().startswith(start))
    return next(matches, None)

"""Texts, or pairs of texts, with a class each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.arrays import ArraySplit
from calibration.errors import DataError
from calibration.text_files import divide, find_files, read_rows
from calibration.tokens import TextEncoder

COLUMNS = "columns text, label and, for pairs of texts, text2"


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One row; ``second`` is None where a sample is a single text."""

    text: str
    second: str | None
    label: str


def labelled_splits(data: Path, encoder: TextEncoder, names: Sequence[str]) -> tuple[ArraySplit, ArraySplit]:
    """The train and test splits of CSV or TSV files; one file alone is split by the content of its texts.

    Args:
        data: the file, or a folder as `find_files` takes.
        encoder: makes sequences of the texts.
        names: of the classes that the network knows, in the order of its outputs.

    Raises:
        DataError: files or columns are missing, a text is empty, or a label is not one of the network's classes.
    """
    files = find_files(data, (".csv", ".tsv"), f"texts with the {COLUMNS}")
    train = read_labelled(files.train)
    train, test = (train, read_labelled(files.test)) if files.test else divide(train, _key)
    return _split(train, files.train, encoder, names), _split(test, files.test or files.train, encoder, names)


def read_labelled(path: Path) -> list[LabelledText]:
    """Rows of a file whose first row names the columns.

    Raises:
        DataError: a column is missing or a text is empty.
    """
    header, *rows = read_rows(path)
    columns = {name.strip().lower(): index for index, name in enumerate(header)}
    missing = [name for name in ("text", "label") if name not in columns]
    if missing:
        found = ", ".join(name[:20] for name in header)
        raise DataError(f"{path} has no column {' and no column '.join(missing)}, only: {found}. It needs {COLUMNS}")
    if not rows:
        raise DataError(f"{path} has no rows under its header")
    second = columns.get("text2")
    found_rows = [
        LabelledText(row[columns["text"]], None if second is None else row[second], row[columns["label"]].strip())
        for row in rows
    ]
    for number, row in enumerate(found_rows, start=2):
        if not row.text.strip() or (row.second is not None and not row.second.strip()):
            raise DataError(f"{path}: row {number} has an empty text. Fill or remove it")
    return found_rows


def _split(rows: Sequence[LabelledText], path: Path, encoder: TextEncoder, names: Sequence[str]) -> ArraySplit:
    has_numbers_for_names = any(name.isdigit() for name in names)  # stars from 1 to 5 are no places from 0 to 4
    index = {} if has_numbers_for_names else {str(number): number for number in range(len(names))}
    index |= {name.lower(): number for number, name in enumerate(names)}
    unknown = sorted({row.label for row in rows if row.label.lower() not in index})
    if unknown:
        raise DataError(
            f"{path} has the labels {', '.join(unknown[:8])}, which the network does not know. It tells apart "
            f"{len(names)} classes: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}; write these names, "
            f"{'' if has_numbers_for_names else f'or their numbers 0 to {len(names) - 1}, '}or give --weights of a "
            "network for these labels"
        )
    labels = np.array([index[row.label.lower()] for row in rows], np.int64)
    seconds = [row.second for row in rows if row.second is not None]
    return ArraySplit(encoder([row.text for row in rows], seconds or None), labels, labels, tuple(names), np.int64)


def _key(row: LabelledText) -> str:
    return f"{row.text}\n{row.second or ''}"

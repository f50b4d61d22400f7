"""Building tables that leave out what nobody measured."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from reports.document import NOT_MEASURED, Column, Table

T = TypeVar("T")


def table(
    caption: str,
    records: Sequence[T],
    columns: Sequence[tuple[Column, Callable[[T], str]]],
    footer: Sequence[str] = (),
) -> Table:
    """A row for every record; a column that was measured for none of them is left out."""
    cells = [[text(record) for _, text in columns] for record in records]
    kept = [i for i in range(len(columns)) if any(row[i] != NOT_MEASURED for row in cells)]
    return Table(
        caption,
        tuple(columns[i][0] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in cells),
        tuple(footer[i] for i in kept) if footer else (),
    )


def facts(caption: str, pairs: Sequence[tuple[str, str]], headings: tuple[str, str] = ("What", "Value")) -> Table:
    """A table of names and values."""
    return Table(caption, tuple(Column(heading, numeric=False) for heading in headings), tuple(pairs))


def absent(what: str, file: str, files_absent: frozenset[str]) -> str:
    """The sentence that stands for a part of which nothing was measured."""
    why = f"the run has no {file}" if file in files_absent else f"{file} does not say"
    return f"{what}: {NOT_MEASURED} ({why})."


def text_or(value: str | None) -> str:
    """The text, or that there is none."""
    return value if value is not None else NOT_MEASURED

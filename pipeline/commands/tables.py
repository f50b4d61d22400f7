"""Tables for people."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from pipeline.releases.checks import Check
from reports import document

TONES = {"good": "green", "wary": "yellow", "bad": "red"}
COLOURS = {"passed": "green", "failed": "red", "noted": "yellow", "skipped": "yellow"}


def checks_table(checks: Sequence[Check]) -> Table:
    """One row a check, in their order."""
    table = Table("check", "asked", "found", "")
    for check in checks:
        colour = COLOURS[check.status]
        cells = (check.name, check.asked, check.found)
        table.add_row(*map(escape, cells), f"[{colour}]{check.status}[/{colour}]")
    return table


def shown(contents: document.Table) -> Table:
    """A report's table on the terminal, its tones as colours."""
    columns = (Column(column.heading, overflow="fold") for column in contents.columns)
    table = Table(*columns, title=contents.caption, title_justify="left")
    plain = [("",) * len(row) for row in contents.rows]
    for row, tones in zip(contents.rows, contents.tones or plain, strict=True):
        table.add_row(*(Text(cell, style=TONES.get(tone, "")) for cell, tone in zip(row, tones, strict=True)))
    return table

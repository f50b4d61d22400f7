"""Checks as a table for people."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from pipeline.checks import Check

COLOURS = {"passed": "green", "failed": "red", "noted": "yellow", "skipped": "yellow"}


def checks_table(checks: Sequence[Check]) -> Table:
    """One row a check, in their order."""
    table = Table("check", "asked", "found", "")
    for check in checks:
        colour = COLOURS[check.status]
        cells = (check.name, check.asked, check.found)
        table.add_row(*map(escape, cells), f"[{colour}]{check.status}[/{colour}]")
    return table

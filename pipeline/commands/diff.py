"""`pipeline diff`: two releases beside each other."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape
from rich.table import Table

from pipeline.commands.options import as_json_option
from pipeline.console import Reporter

if TYPE_CHECKING:
    from pipeline.releases.release_changes import Changes

COLOURS = {"better": "green", "worse": "red"}


@click.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@as_json_option
def diff(before: Path, after: Path, as_json: bool) -> None:
    """What changed from one release to another: speed, accuracy, plan, host and versions.

    \b
    pipeline diff runs/last/bundle runs/release/bundle

    Takes bundles, run folders or certificates. Speedup and accuracy are called better or worse only where their
    intervals part, and not judged where they hold for different hosts, targets or test data. `pipeline gate --against`
    turns this into an exit code.
    """
    from pipeline.releases.release import read_release
    from pipeline.releases.release_changes import compare

    changes = compare(read_release(before), read_release(after))
    _tell(changes)
    if as_json:
        click.echo(json.dumps(changes.to_json()))


def _tell(changes: "Changes") -> None:
    from pipeline.releases.release_changes import level_text

    reporter = Reporter()
    figures = Table("figure", *map(escape, (changes.before.name, changes.after.name)), "change", "verdict")
    for figure in changes.figures:
        verdict = f"{figure.verdict} ({figure.why})" if figure.why else ""
        figures.add_row(figure.name, *figure.texts, escape(verdict), style=COLOURS.get(figure.verdict))
    reporter.table(figures)
    if changes.units is None:
        reporter.say("plans: not compared, a certificate alone has none")
    elif changes.units:
        units = Table("unit", "before", "after", "change")
        for unit in changes.units:
            units.add_row(escape(unit.name), level_text(unit.before), level_text(unit.after), unit.by_text)
        reporter.table(units)
    else:
        reporter.say("plans: the same")
    for fact in changes.facts:
        reporter.say(escape(f"{fact.name}: {fact.before} → {fact.after}"))

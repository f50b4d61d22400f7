"""`pipeline history`: latency, speedup and accuracy over releases."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pipeline.commands.options import as_json_option
from pipeline.commands.tables import shown
from pipeline.console import Reporter
from targets.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.releases.history import History
    from pipeline.releases.release import Release


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--html", type=click.Path(path_type=Path), help="also write a page with charts")
@as_json_option
def history(runs: tuple[str, ...], html: Path | None, as_json: bool) -> None:
    """Latency, speedup and accuracy over releases, and what changed in the plan.

    \b
    pipeline history runs/*
    pipeline history releases/1.0 releases/1.1 releases/1.2 --html history.html
    pipeline history mlflow:http://127.0.0.1:5000

    Takes run folders, bundles, certificates and MLflow experiments, by the time of their certificates, or in the order
    given where one does not say its time. Run folders without a certificate yet are left out. Regressions are flagged
    only where intervals part.
    """
    from pipeline.releases.history import history_of

    reporter = Reporter()
    found = history_of(_certified(runs, reporter))
    if html:
        from pipeline.files import write_where_asked
        from pipeline.releases.history_page import history_page
        from reports.html import render_html

        write_where_asked(html, render_html(history_page(found)))
    _tell(found, reporter)
    if as_json:
        click.echo(json.dumps(found.to_json()))


def _certified(runs: tuple[str, ...], reporter: Reporter) -> "list[Release]":
    from pipeline.releases.release import is_unfinished, read_release

    releases = []
    for name in runs:
        if name.partition(":")[0] == "mlflow":
            from pipeline.tracking.mlflow_releases import tracked_releases

            releases += tracked_releases(name)
        elif is_unfinished(Path(name)):
            reporter.warn(f"{escape(name)} has no certificate yet and is left out")
        else:
            releases.append(read_release(Path(name)))
    if not releases:
        raise ConfigError("None of these runs has a certificate yet: `pipeline certify RUN_FOLDER` makes one.")
    return releases


def _tell(found: "History", reporter: Reporter) -> None:
    from pipeline.releases.history import change_texts, history_table

    reporter.table(shown(history_table(found)))
    for change in found.changes:
        for text in change_texts(change):
            reporter.say(escape(text))
    for regression in found.regressions:
        reporter.warn(escape(f"regression: {regression}"))
    if not found.regressions:
        reporter.say("no regressions shown: no intervals part for the worse")

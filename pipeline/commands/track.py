"""`pipeline track`: send what a tracked run could not."""

import json
from pathlib import Path

import click

from pipeline.commands.options import as_json_option
from pipeline.console import Reporter
from pipeline.run_folder import RunFolder
from targets.errors import ConfigError


@click.command()
@click.option(
    "--resend", "folder", type=click.Path(path_type=Path), required=True, help="run folder whose events are to be sent"
)
@click.option("--to", help="mlflow or mlflow:URI  [default: where the run was tracked to]")
@as_json_option
def track(folder: Path, to: str | None, as_json: bool) -> None:
    """Send the events of a run that its server has not got.

    \b
    pipeline track --resend runs/release                                 the server was down
    pipeline track --resend runs/release --to mlflow:http://other:5000   another server, from the beginning

    Every event arrives once, however often this is repeated. A run that was not tracked becomes one with
    `pipeline report RUN_FOLDER --track mlflow:URI`.
    """
    from pipeline.tracking.mlflow_server import parse_destination
    from pipeline.tracking.mlflow_tracker import MlflowRun
    from pipeline.tracking.sender import drain
    from pipeline.tracking.spool import EVENTS, Spool

    if not (folder / EVENTS).exists():
        raise ConfigError(f"{folder} holds no tracked run. Track it: pipeline report {folder} --track mlflow:URI")
    with RunFolder(folder).lock():
        spool = Spool(folder)
        destination = MlflowRun(parse_destination(to or spool.last_destination or "mlflow"), spool)
        count = drain(spool, destination)
        Reporter().say(f"{count} events sent to {destination.name}, run {destination.run_id}")
    if as_json:
        click.echo(json.dumps({"sent": count, "to": destination.name, "run_id": destination.run_id}))

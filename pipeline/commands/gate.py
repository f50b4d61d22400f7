"""`pipeline gate`: let a bundle pass into a release, or stop the job with a reason."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pipeline.commands.options import as_json_option
from pipeline.commands.tables import checks_table
from pipeline.console import Reporter
from pipeline.provenance.variables import PUBLIC_KEY_VARIABLE

if TYPE_CHECKING:
    from pipeline.releases.gate import Verdict


def _limit(context: click.Context, option: click.Parameter, value: float | None) -> float | None:  # noqa: ARG001
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise click.BadParameter(f"a limit is a finite number, 0 or more; got {value}")
    return value


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="another release that it must not be worse than")
@click.option("--verified", type=click.Path(path_type=Path), help="record of `pipeline verify`, which a proxy needs")
@click.option(
    "--public-key",
    type=click.Path(path_type=Path),
    envvar=PUBLIC_KEY_VARIABLE,
    help=f"that must have signed the record of --verified; without one, the bundle  [default: ${PUBLIC_KEY_VARIABLE}]",
)
@click.option("--min-speedup", type=float, callback=_limit, help="that the speedup's whole interval reaches")
@click.option("--max-drop", type=float, callback=_limit, help="accuracy points that may be lost, such as 1.0")
@click.option("--max-latency-ms", type=float, callback=_limit, help="median latency of the compressed network")
@click.option("--max-size-mb", type=float, callback=_limit, help="size of model.onnx, in 10⁶ bytes")
@click.option("--junit", type=click.Path(path_type=Path), help="also write JUnit XML, one test case a check")
@as_json_option
def gate(
    bundle: Path,
    against: Path | None,
    verified: Path | None,
    public_key: Path | None,
    min_speedup: float | None,
    max_drop: float | None,
    max_latency_ms: float | None,
    max_size_mb: float | None,
    junit: Path | None,
    as_json: bool,
) -> int:
    """Hold a bundle's certificate against what a release asks for. Nothing is measured.

    \b
    pipeline gate runs/release/bundle --min-speedup 2.5 --max-drop 1
    pipeline gate runs/release/bundle --against runs/last/bundle --junit gate.xml

    Without options the bundle must be unaltered and certified, on a CPU of the target's vendor: a proxy needs
    --verified, the record of a verification on the device. --against, which takes a bundle, a run folder or a
    certificate, fails only where the intervals of speedup or accuracy part, and skips what was measured under other
    conditions. Where GITHUB_STEP_SUMMARY is set, a summary goes there.

    The first check that fails gives the exit code, in this order: unaltered and of a version that is known (5),
    accuracy (4), certificate (3 missed, 6 inconclusive), proxy (6), speedup and latency (3), size (5).
    """
    from pipeline.releases.gate import Limits, pass_gate
    from pipeline.releases.gate_records import append_summary, write_junit
    from pipeline.releases.verified import read_verified

    limits = Limits(min_speedup, max_drop, max_latency_ms, max_size_mb)
    record = read_verified(verified, public_key) if verified else None
    verdict = pass_gate(bundle, limits, against, record, None if verified else public_key)
    if junit:
        write_junit(verdict, junit)
    if page := os.environ.get("GITHUB_STEP_SUMMARY"):
        append_summary(verdict, Path(page))
    _tell(verdict)
    if as_json:
        click.echo(json.dumps(verdict.to_json()))
    return verdict.exit_code


def _tell(verdict: "Verdict") -> None:
    reporter = Reporter()
    reporter.table(checks_table(verdict.checks))
    end = f" (exit code {verdict.exit_code})" if verdict.exit_code else ""
    reporter.stage(f"[bold]{verdict.status}[/bold]: {escape(str(verdict.bundle))}{end}")

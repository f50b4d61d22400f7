"""`pipeline verify`: is a bundle what was certified, by whom, and does its speedup hold here?"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from pipeline.commands.options import as_json_option, public_key_option
from pipeline.commands.tables import checks_table
from pipeline.console import Reporter
from pipeline.provenance.variables import SIGNING_KEY_VARIABLE
from targets.errors import ArtifactError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pipeline.verifying.verify import Verification

ADVICE = {
    3: "It is not as fast here as was claimed. Look at what was noted above, or say what would do with --min-speedup",
    4: "It loses more on this sample than was certified. Look whether the sample is preprocessed as serving.json says",
    5: "It is not the network that was certified, or this runtime computes something else with it. Get the bundle "
    "again, and compare the runtime's version with the certificate's",
    6: "It is left open, by noise where nothing else is said. Measure again on a quieter machine, without --budget or "
    "with a larger one; or, as root, ahead of the other processes with --precedence",
    7: "It was certified on another CPU, and --strict-host asks for that one. Verify on a host of that kind",
}
"""What to do about a check that failed, by exit code."""
POSITIVE = click.FloatRange(0, min_open=True)


def _seconds(context: click.Context, option: click.Parameter, value: float | None) -> float | None:  # noqa: ARG001
    return None if value is None else value / 1000


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@public_key_option
@click.option("--files-only", is_flag=True, help="hashes and signature alone; needs no runtime")
@click.option("--measure/--no-measure", default=True, help="measure the speedup again  [default: measure]")
@click.option("--budget", "budget_s", type=POSITIVE, help="seconds after which measuring ends as soon as it can")
@click.option("--min-speedup", type=click.FloatRange(1, min_open=True), help="claim  [default: the certificate's]")
@click.option(
    "--dense-latency-ms",
    "dense_latency_s",
    type=POSITIVE,
    callback=_seconds,
    help="where the bundle has no dense.onnx to measure against",
)
@click.option("--sample", type=click.Path(path_type=Path), help=".npz with inputs and the right answers: scored, too")
@click.option("--tolerance", type=POSITIVE, default=1e-3, show_default=True, help="of the golden outputs, relative")
@click.option("--strict-host", is_flag=True, help="another CPU than the certificate's is a failure (exit 7)")
@click.option("--precedence", is_flag=True, help="measure ahead of every other process there, which takes root")
@click.option("--host", default="local", help="device to verify on: ssh://user@box  [default: this host]")
@click.option("--python", help="interpreter on that device that has the runtime  [default: python3]")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    help="where the record goes  [default: beside the bundle; none with --files-only]",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    envvar=SIGNING_KEY_VARIABLE,
    help=f"sign the record with this key  [default: ${SIGNING_KEY_VARIABLE}]",
)
@as_json_option
def verify(bundle: Path, record: Path | None, key: Path | None, as_json: bool, **asked: Any) -> int:
    """Check that a bundle is what was certified, and measure on this host, or on --host, whether its speedup holds.

    \b
    pipeline verify runs/release/bundle
    pipeline verify runs/release/bundle --files-only --public-key release.pub
    pipeline verify runs/release/bundle --budget 60 --host ssh://user@box

    Needs numpy and the certified runtime, no torch: pip install 'spdy-edge[verify]'. In turn: hashes and signature,
    host and versions, golden outputs, accuracy on a --sample, speedup against the bundle's dense.onnx, hidden costs.

    A record of what was found, samples included, goes beside the bundle, which is never altered. Exit codes: 0 holds,
    3 speedup missed, 4 less accurate, 5 altered or other outputs, 6 inconclusive, 7 runtime missing or unreachable.
    """
    from pipeline.provenance.signing import load_private_key
    from pipeline.verifying.verify import VerifyOptions, altered, place_of_record
    from pipeline.verifying.verify import verify as verify_all

    options = VerifyOptions(**asked)
    has_record = record is not None or not options.files_only
    signing_key = load_private_key(key) if key and has_record else None
    reporter = Reporter()
    place = place_of_record(bundle, record) if has_record else None
    try:
        with reporter.task("verifying", 1) as task:
            found = verify_all(bundle, options, lambda what, done, total: task.update(done, what, total))
    except ArtifactError as error:
        _record(altered(bundle, error), place, signing_key)
        raise
    _record(found, place, signing_key)
    _tell(found, place, reporter)
    if as_json:
        answer = found.to_json() | {"record": place and str(place)}
        answer.get("speedup", {}).pop("samples", None)
        click.echo(json.dumps(answer))
    return found.exit_code


def _record(found: "Verification", place: Path | None, key: "Ed25519PrivateKey | None") -> None:
    """Write what was found, and sign it where there is a key."""
    from pipeline.provenance.signing import sign_file
    from pipeline.run_folder import write_json

    if place:
        write_json(place, found.to_json())
        if key:
            sign_file(place, key)


def _tell(found: "Verification", record: Path | None, reporter: Reporter) -> None:
    reporter.table(checks_table(found.checks))
    end = f" (exit code {found.exit_code})" if found.exit_code else ""
    reporter.stage(f"[bold]{found.status}[/bold]: {escape(found.bundle)}{end}")
    if found.exit_code:
        reporter.say(f"{ADVICE[found.exit_code]}.")
    if record:
        reporter.say(f"record: {escape(str(record))}")

"""The command `pipeline`: what was typed becomes a configuration, what comes out an exit code."""

import json
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.table import Table

from calibration.errors import DataError
from pipeline.commands.compare import compare
from pipeline.commands.config import config_command
from pipeline.commands.diff import diff
from pipeline.commands.envelope import envelope
from pipeline.commands.fetch import fetch
from pipeline.commands.gate import gate
from pipeline.commands.history import history
from pipeline.commands.options import as_json_option, run_options
from pipeline.commands.predict import predict
from pipeline.commands.publish import publish
from pipeline.commands.sign import keygen, sign
from pipeline.commands.tables import shown
from pipeline.commands.track import track
from pipeline.commands.verify import verify
from pipeline.config import AUTO_RUNTIME, RunConfig, resolve
from pipeline.console import Reporter
from pipeline.run_folder import RunFolder
from reports import document
from reports.errors import ReportError
from reports.records import read_run
from reports.sections.environment import probe_section
from targets.errors import ConfigError, RuntimeMissingError, UserError

if TYPE_CHECKING:
    from pipeline.context import Run

INTERRUPTED = 130
OURS = ("pipeline", "profilers", "targets", "calibration", "reports")
PROBE_SPEEDUP = 2.0
"""A probe looks at no request; its folder records one all the same."""
STAGES = {
    "probe": "What each installed runtime gains from sparsity on this CPU → capability.json",
    "profile": "Measure plans inside the running network and fit the latency table → latency_table.json",
    "calibrate": "Draw the calibration set → calibration.json",
    "database": "Reconstruct every unit's weights at every level → database/",
    "search": "Choose every unit's level under the time budget, measure, correct, search again → plan.json",
    "prune": "Correct the stitched model, or prune gradually with --epochs → checkpoint.safetensors",
    "export": "Write ONNX and OpenVINO IR and check them against the checkpoint → parity.json",
    "certify": "Measure dense and compressed in turns in fresh processes → certificate.json",
    "report": "Write report.html, report.md, report.json and the bundle",
}


def main() -> NoReturn:
    """Entry point of the console command."""
    signal.signal(signal.SIGTERM, _interrupt)
    as_json = "--json" in sys.argv
    try:
        code = cli.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        if not as_json:
            error.show()
        _fail(error.format_message(), 2, as_json, shown=True)
    except (KeyboardInterrupt, click.Abort):
        kept = "What was finished is kept: the same command goes on from there."
        begins_again = "Nothing was written: a verification speaks for one time, and begins again."
        _fail(f"Interrupted. {begins_again if 'verify' in sys.argv[1:2] else kept}", INTERRUPTED, as_json)
    except UserError as error:
        _fail(str(error), error.exit_code, as_json, **error.facts)
    except (DataError, ReportError) as error:
        _fail(str(error), error.exit_code, as_json)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        said = f"{place}{error.strerror or error}. What was finished is kept: make it readable, or make room"
        _fail(f"{said}, and the same command goes on from there.", ConfigError.exit_code, as_json)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in OURS:
            raise
        needs = f"{package} is not installed, and this command needs it: pip install 'spdy-edge[compress]'"
        _fail(needs, RuntimeMissingError.exit_code, as_json)


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise KeyboardInterrupt


def _fail(message: str, code: int, as_json: bool, shown: bool = False, **facts: Any) -> NoReturn:
    with suppress(BrokenPipeError):  # whoever read the answer may be gone
        if as_json:
            click.echo(json.dumps({"status": "error", "exit_code": code, "error": message, **facts}))
        if as_json or not shown:
            click.echo(f"error: {message}", err=True)
    sys.exit(code)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="spdy-edge")
def cli() -> None:
    """Make a trained network N times faster on a CPU, and certify it.

    \b
    pipeline run --target intel --speedup 3                      embedded example, nothing else needed
    pipeline run --target amd --speedup 2.5 --model resnet:20 \\
        --weights resnet20.safetensors --data cifar10.zip        your own network and data
    pipeline run --out runs/mine --epochs 6 …                    with gradual pruning

    Every stage can also be run alone on the run folder (`pipeline search runs/mine`); what is finished is never done
    twice. Exit codes: 0 certified · 2 usage · 3 speedup missed or unreachable · 4 accuracy below the floor · 5 artifact
    altered or broken · 6 inconclusive · 7 runtime missing · 130 interrupted.
    """


@cli.command()
@run_options
@click.option("--out", type=click.Path(path_type=Path), help="run folder  [default: runs/MODEL-TARGET-SPEEDUPx]")
@click.option("--resume/--no-resume", default=True, help="go on with what the folder holds  [default: resume]")
def run(config: Path | None, as_json: bool, out: Path | None, resume: bool, **flags: Any) -> int:
    """The whole job: probe, profile, database, search, prune, export, certify, report."""
    return _execute("report", config, as_json, out, resume, flags)


def _stage_command(name: str, text: str) -> None:
    @cli.command(name, help=f"{text}\n\nEarlier stages that are not finished are run first.")
    @click.argument("folder", type=click.Path(path_type=Path), required=False)
    @run_options
    @click.option("--out", type=click.Path(path_type=Path), help="run folder, as the argument")
    @click.option("--again", is_flag=True, help="do this stage again even if it is finished")
    def stage(
        folder: Path | None, config: Path | None, as_json: bool, out: Path | None, again: bool, **flags: Any
    ) -> int:
        export = flags.pop("export", None)
        return _execute(name, config, as_json, folder or out, True, flags, again=again, export=export)

    if name == "profile":
        click.option(
            "--export", type=click.Path(path_type=Path), help="also write the table here, for --latency-table"
        )(stage)


for _name, _text in STAGES.items():
    _stage_command(_name, _text)


def _execute(
    last: str,
    config_file: Path | None,
    as_json: bool,
    out: Path | None,
    resume: bool,
    flags: dict[str, Any],
    again: bool = False,
    export: Path | None = None,
) -> int:
    folder = RunFolder(out) if out else None
    if last == "probe" and flags["speedup"] is None and not (folder and folder.record.exists()):
        flags["speedup"] = PROBE_SPEEDUP
        folder = folder or RunFolder(Path("runs") / "probe")
    config = resolve(flags, config_file, folder.stored_config() if folder else None)
    if folder is None:
        folder = RunFolder(_default_folder(config))
        config = resolve(flags, config_file, folder.stored_config())
    if not resume and folder.record.exists():
        raise ConfigError(
            f"{folder.path} already holds a run. Leave out --no-resume to go on with it, or name another --out."
        )
    # torch takes seconds to import: wrong flags and --help need not wait
    from pipeline.execution import execute
    from pipeline.planning.choosing import run_on_best
    from pipeline.setup import prepare

    with folder.lock():
        if config.runtime == AUTO_RUNTIME and last != "probe":
            context, result = run_on_best(config, folder, Reporter(), last, again)
        else:
            context = prepare(config, folder, Reporter())
            result = execute(context, last, again=again)
        if export:
            from pipeline.planning.carrying import export_table

            export_table(context, export)
        tell(context, result)
    if as_json:
        click.echo(json.dumps(result))
    return int(result["exit_code"])


def _default_folder(config: RunConfig) -> Path:
    model = (config.model or "resnet:digits").replace(":", "")
    target = Path(config.target).stem
    return Path("runs") / f"{model}-{target}-{config.speedup:g}x"


@cli.group()
def runtimes() -> None:
    """Runtimes that can be measured and deployed on."""


@runtimes.command("list")
@as_json_option
def runtimes_list(as_json: bool) -> None:
    """Installed and installable runtimes."""
    from targets.registry import RUNTIMES, installed_runtimes

    installed = {info.name: info for info in installed_runtimes()}
    if as_json:
        click.echo(json.dumps({name: info.version for name, info in installed.items()}))
        return
    table = Table("runtime", "version", "gains from", "precisions", "licence")
    for name in RUNTIMES:
        info = installed.get(name)
        if info:
            gains, precisions = ", ".join(info.families) or "-", ", ".join(info.precisions)
            table.add_row(name, info.version, gains, precisions, info.licence_note)
        else:
            table.add_row(name, f"not installed: pipeline runtimes install {name}", "", "", "")
    Reporter().table(table)


@runtimes.command("install")
@click.argument("name")
def runtimes_install(name: str) -> None:
    """Make a runtime's managed environment (deepsparse: about half a gigabyte)."""
    from pipeline.setup import install_runtime

    reporter = Reporter()
    reporter.say(f"{name} is installed: {install_runtime(name, reporter)}")


@cli.group()
def models() -> None:
    """Model families."""


@models.command("list")
@as_json_option
def models_list(as_json: bool) -> None:
    """Models, and the data each of them takes."""
    from pipeline.models.registry import list_models

    if as_json:
        fields = ("name", "description", "data_format")
        click.echo(json.dumps([{name: getattr(entry, name) for name in fields} for entry in list_models()]))
        return
    table = Table("model", "what it is", "data")
    for entry in list_models():
        table.add_row(entry.name, entry.description, entry.data_format)
    Reporter().table(table)


@cli.group(name="targets")
def targets_group() -> None:
    """What to deploy on."""


@targets_group.command("list")
@as_json_option
def targets_list(as_json: bool) -> None:
    """Presets; a TOML file with the same fields is a target too."""
    from targets.target import list_presets

    if as_json:
        click.echo(json.dumps([asdict(preset) for preset in list_presets()]))
        return
    table = Table("target", "vendor", "batch size", "what it is")
    for preset in list_presets():
        table.add_row(preset.name, preset.vendor, str(preset.batch_size), preset.description)
    Reporter().table(table)


def tell(run: "Run", result: dict[str, Any]) -> None:
    """The end of a run, in words."""
    say = run.reporter.say
    if result["status"] == "done":
        if result["stage"] == "probe":
            for contents in probe_section(read_run(run.folder.path)).parts:
                if isinstance(contents, document.Table):
                    run.reporter.table(shown(contents))
        say(f"{result['stage']} is done: {run.folder.path}")
        return
    accuracy = result["accuracy"]
    run.reporter.stage(
        f"[bold]{result['status']}[/bold]: {result['measured_speedup']:.2f}x "
        f"(95% interval {result['ci_low']:.3f} to {result['ci_high']:.3f}), "
        f"requested {result['requested_speedup']:g}x; "
        f"{accuracy['metric']} {accuracy['compressed']:.2%}, dense {accuracy['dense']:.2%}"
    )
    if "report" in result:
        say(f"report: {result['report']}")
        say(f"bundle: {result['bundle']}")
    if run.carried:
        run.reporter.warn(
            "proxy: the plan is for the host of the latency table. Whether it holds there is for that host to say: "
            "copy the bundle to it and run `pipeline verify BUNDLE`, or name it with --host"
        )
    elif run.proxy:
        run.reporter.warn(
            f"proxy: measured on {run.host.vendor}, meant for {run.target.vendor}. To certify the bundle, copy it to "
            "the device and run `pipeline verify BUNDLE` there, or name the device with --host. A target with a host "
            "(docs/targets.md) has plans that are made for it"
        )


cli.add_command(predict)
cli.add_command(config_command)
cli.add_command(verify)
cli.add_command(envelope)
cli.add_command(sign)
cli.add_command(keygen)
cli.add_command(publish)
cli.add_command(fetch)
cli.add_command(compare)
cli.add_command(diff)
cli.add_command(gate)
cli.add_command(history)
cli.add_command(track)

"""From a configuration to a run that can start: target, host, runtimes to choose from, and its folder."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.backends.workers import Workers
from pipeline.config import AUTO_RUNTIME, RunConfig, to_toml
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.families.choice import named_families, with_families
from pipeline.run_folder import RunFolder
from pipeline.tracking.mlflow_tracker import open_tracker
from targets import environments
from targets.devices.registry import LOCAL
from targets.errors import RuntimeMissingError
from targets.files import write_atomically
from targets.host import HostFingerprint, is_proxy
from targets.registry import RuntimeInfo, get_runtime, installed_runtimes
from targets.target import Target, load_target

DEEPSPARSE = "deepsparse"
ZEROS = "unstructured"
PACKAGES = 32
"""About as many packages as a managed environment has, for the progress."""


def prepare(config: RunConfig, folder: RunFolder, reporter: Reporter) -> Run:
    """Check what was asked against this host.

    Raises:
        ConfigError: a target or runtime that does not exist.
        RuntimeMissingError: the runtime or the tracker is not installed, or the host is of another vendor and
            `strict_target` is set.
        UnreachableError: the target's host does not answer.
    """
    target = load_target(
        config.target,
        runtime=None if config.runtime == AUTO_RUNTIME else config.runtime,
        batch_size=config.batch_size,
        threads=config.threads,
        input_size=config.input_size,
        precedence=config.precedence,
    )
    host = target.device.host()
    proxy = is_proxy(target, host)
    if proxy:
        _say_proxy(config, target, host, reporter)
    tracker = open_tracker(config.track, folder.path, reporter.warn)
    candidates = choose_candidates(target, config, reporter)
    workers = Workers(config.backend, config.scheduler, config.workers)
    return Run(config, folder, target, host, proxy, reporter, tuple(candidates), tracker, workers)


def open_folder(run: Run) -> None:
    """Record the run in its folder; not before what the user gave was found good, or a typo would own the folder."""
    details = {"command": sys.argv, "versions": _versions(), "host": run.host.to_json()}
    run.folder.open(run.config.model_dump(mode="json"), details)
    write_atomically(run.folder.file("run.toml"), to_toml(run.config).encode())


def _say_proxy(config: RunConfig, target: Target, host: HostFingerprint, reporter: Reporter) -> None:
    text = f"this host's CPU is by {host.vendor}, the target's by {target.vendor}"
    if config.strict_target:
        raise RuntimeMissingError(
            f"{text[0].upper()}{text[1:]}. Run on a host of the target's vendor, or leave out --strict-target to get a "
            "result that is marked as a proxy."
        )
    reporter.warn(f"{text}: the target's settings are used, and every result is marked as a proxy")


def choose_candidates(target: Target, config: RunConfig, reporter: Reporter) -> list[RuntimeInfo]:
    """Runtimes to probe: the one asked for, or all that are installed and have the families asked for.

    Where none can gain from zeros, and they may be used, DeepSparse's environment is installed first if that is allowed
    and possible.

    Raises:
        RuntimeMissingError: the runtime that was asked for is not installed, or none is.
        ConfigError: none has the families.
    """
    if target.host != LOCAL:
        found = _candidates_there(target)
    elif target.runtime:
        found = [get_runtime(target.runtime)]
    else:
        may_install = config.install and ZEROS in named_families(config.families or ZEROS)
        found = _candidates_here(may_install, reporter)
    return with_families(config.families, found)


def _candidates_here(may_install: bool, reporter: Reporter) -> list[RuntimeInfo]:
    found = installed_runtimes()
    if may_install and not any(ZEROS in info.families for info in found):
        reporter.say("no installed runtime gains from zeros: installing DeepSparse (evaluation licence, about 0.5 GB)")
        try:
            install_runtime(DEEPSPARSE, reporter)
            found = installed_runtimes()
        except RuntimeMissingError as error:
            reporter.warn(f"going on without DeepSparse: {error}")
    if not found:
        raise RuntimeMissingError("No runtime is installed: `pip install onnxruntime openvino`, or install DeepSparse.")
    return found


def _candidates_there(target: Target) -> list[RuntimeInfo]:
    found = target.device.runtimes()
    wanted = [info for info in found if target.runtime in (None, info.name)]
    if not wanted:
        there = ", ".join(info.name for info in found) or "none"
        raise RuntimeMissingError(
            f"{target.host}: {target.runtime or 'a runtime'} was asked for, and {target.python or 'python3'} there has "
            f"{there}. Install it beside numpy, or let the target's `python` name an interpreter that has it."
        )
    return wanted


def install_runtime(name: str, reporter: Reporter) -> Path:
    """Make a runtime's managed environment, with progress by package; its interpreter.

    Raises:
        ConfigError: the runtime has no managed environment.
        RuntimeMissingError: it cannot be made here.
    """
    with reporter.task(f"installing {name}", PACKAGES) as task:
        started: list[str] = []

        def show(line: str) -> None:
            if line.startswith(("Collecting", "Processing")):
                started.append(line.split()[1])
            task.update(min(len(started), PACKAGES), started[-1] if started else line)

        return environments.install(name, show)


def _versions() -> dict[str, Any]:
    packages = ("spdy-edge", "torch", "onnx", "onnxruntime", "openvino", "numpy", "scipy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found

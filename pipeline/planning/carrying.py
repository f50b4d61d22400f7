"""Latency tables that are carried from host to host: written for another run, and taken from one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.context import Run
from pipeline.run_folder import digest, file_digest
from profilers.latency_table import Choice, LatencyTable, PlanMeasurement
from targets.errors import ConfigError
from targets.levels import Level

HELD_FOR = ("runtime", "threads", "batch_size")
"""What of a target a table holds for."""


def export_table(run: Run, path: Path) -> None:
    """Copy the run's latency table, which names its host and target.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.folder.file("latency_table.json"), path)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror or error}. Name another file with --export.") from None


def carried_table(run: Run, path: Path) -> LatencyTable:
    """A table of another run, which must be of the same network, levels and target.

    Raises:
        ConfigError: it is of others.
        ArtifactError: it cannot be read.
    """
    table = LatencyTable.load(path)
    here = run.bench.target.to_json()
    different = [
        f"{name} {table.target.get(name)}, here {here[name]}"
        for name in HELD_FOR
        if table.target.get(name) != here[name]
    ]
    if table.units != run.table_units:
        different.append("other units")
    if table.levels != run.levels:
        different.append(f"{_summary(table.levels)}, here {_summary(run.levels)}, or other amounts")
    if different:
        raise ConfigError(
            f"The latency table {path} is not of this run's network and target ({'; '.join(different)}).\n"
            "Give the same model, --runtime, --threads, --batch-size, --families and --levels as it was profiled with."
        )
    return table


def _summary(levels: Sequence[Level]) -> str:
    kinds = [part for level in levels for part in (level.family, level.precision) if part not in ("dense", "fp32")]
    return f"{len(levels)} levels of {', '.join(dict.fromkeys(kinds)) or 'nothing'}"


def take_table(run: Run, source: Path, path: Path) -> None:
    """A carried table in place of a profile; another host's makes this run a proxy."""
    table = carried_table(run, source)
    key = digest("carried", run.host_key, file_digest(source))
    run.folder.stage("profile", key, [path.name], lambda: table.save(path))
    if is_of_another_host(run, table):
        run.proxy = run.carried = True
        run.reporter.warn(
            f"{source} was measured on another host ({table.host_id}): its word is taken for the plan, which is not "
            "corrected by measurements here, and every result is a proxy until it is verified there"
        )


def is_of_another_host(run: Run, table: LatencyTable) -> bool:
    """Whether what is measured here says nothing about the table."""
    return table.host_id != run.host.id


def believed(table: LatencyTable, choice: Choice) -> PlanMeasurement:
    """The table's own word for a plan, where nobody is there to measure it."""
    return PlanMeasurement(choice, 1 / table.speedup(choice), kind="predicted")

"""Where and how it was measured: the probe, the host, the settings."""

import shlex
from collections.abc import Callable, Sequence

from reports.document import Column, Section, Table
from reports.formatting import duration, file_size, flatten, percent, plain, speedup
from reports.records import ProbedRuntime, Run, RunFile
from reports.sections.tables import absent, facts, table, text_or

ZEROS = "unstructured"
"""The family that removes single weights; the others remove whole channels, or bits."""


def probe_section(run: Run) -> Section:
    """What each runtime on this CPU gains from sparsity."""
    runtimes = run.capability.runtimes
    if not runtimes:
        text = absent("What the runtimes gain from sparsity", run.capability.FILE, run.absent)
        return Section("probe", "What this CPU can speed up", (text,))
    text = "Speedup of synthetic operations over dense, by the share removed: zeros, or channels or bits."
    best = table(
        "Runtimes",
        runtimes,
        (
            (Column("Runtime", numeric=False), lambda runtime: runtime.name),
            (Column("Version", numeric=False), lambda runtime: text_or(runtime.version)),
            (Column("Zeros, 90% to 99%"), lambda runtime: speedup(runtime.promise)),
            (Column("At most, any family"), lambda runtime: speedup(runtime.best_speedup)),
        ),
    )
    gains = (
        _gains_table("Zeros: speedup at each sparsity", runtimes, lambda family: family == ZEROS),
        _gains_table("Other families: speedup at each share removed", runtimes, lambda family: family != ZEROS),
    )
    return Section("probe", "What this CPU can speed up", (text,), (best, *(part for part in gains if part.rows)))


def _gains_table(caption: str, runtimes: Sequence[ProbedRuntime], wanted: Callable[[str], bool]) -> Table:
    """Operations of the wanted families down, shares removed across."""
    probed = {runtime.name: [row for row in runtime.rows if wanted(row.family)] for runtime in runtimes}
    shares = sorted({row.sparsity for rows in probed.values() for row in rows if row.sparsity})
    lines = []
    for name, rows in probed.items():
        gains = {(row.operation, row.sparsity): row.speedup for row in rows}
        for operation in dict.fromkeys(row.operation for row in rows):
            lines.append((name, operation, *(speedup(gains.get((operation, share))) for share in shares)))
    headings = (Column("Runtime", numeric=False), Column("Operation", numeric=False))
    return Table(caption, (*headings, *(Column(percent(share, 0)) for share in shares)), tuple(lines))


def host_section(run: Run) -> Section:
    """Host, target, settings, versions and the time that every stage took."""
    certificate, settings = run.certificate, run.run
    host = certificate.host or settings.host
    known = {name: value for name, value in host.items() if value is not None and name != "versions"}
    target = certificate.target.model_dump(exclude_none=True)
    versions = {**settings.versions, **certificate.versions}
    candidates = (
        facts("Target", flatten(target)),
        facts("Host", flatten(known)),
        facts("Settings", flatten(settings.config), ("Setting", "Value")),
        facts("Versions", [(name, plain(version)) for name, version in sorted(versions.items())], ("Name", "Version")),
        facts(
            "Time of the stages, and most memory held by their end",
            [(name, _time_and_memory(settings, name)) for name in settings.stage_seconds],
            ("Stage", "Time, memory"),
        ),
    )
    command = command_text(run)
    text = [f"Command: {command}"] if command else []
    for said, what, file in (
        (host, "Host", certificate.FILE),
        (settings.config, "Settings", settings.FILE),
    ):
        if not said:
            text.append(absent(what, file, run.absent))
    return Section("host", "Host and settings", tuple(text), tuple(part for part in candidates if part.rows))


def _time_and_memory(settings: RunFile, stage: str) -> str:
    peak = settings.stage_peak_bytes.get(stage)
    return duration(settings.stage_seconds[stage]) + (f", {file_size(peak)}" if peak is not None else "")


def command_text(run: Run) -> str:
    """The command that started the run, empty if unknown."""
    command = run.run.command
    return command if isinstance(command, str) else shlex.join(command or ())

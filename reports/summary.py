"""From the files of a run folder to a report as data."""

from pathlib import Path

from reports.document import Summary
from reports.records import Run, read_run
from reports.sections.advice import next_steps
from reports.sections.deployment import deployment_section
from reports.sections.envelope import envelope_section
from reports.sections.environment import host_section, probe_section
from reports.sections.layers import plan_section
from reports.sections.prediction import prediction_section, search_section
from reports.sections.quality import accuracy_section, tuning_section
from reports.sections.speed import latency_section, speed_section
from reports.sections.verdict import headline, key_figures, notices, status_of

SECTIONS = (
    speed_section,
    latency_section,
    deployment_section,
    envelope_section,
    accuracy_section,
    plan_section,
    prediction_section,
    search_section,
    tuning_section,
    probe_section,
    host_section,
)


def build_summary(run_folder: Path) -> Summary:
    """Everything that the report of ``run_folder`` tells.

    Raises:
        ReportError: the folder is missing, or one of its files is broken or of a newer version.
    """
    run = read_run(run_folder)
    return Summary(
        title="Speedup report",
        subtitle=_subtitle(run),
        status=status_of(run),
        headline=headline(run),
        notices=notices(run),
        key_figures=key_figures(run),
        sections=tuple(section(run) for section in SECTIONS),
        next_steps=next_steps(run),
    )


def _subtitle(run: Run) -> str:
    target, model = run.certificate.target, run.run.config.get("model")
    parts = [
        model if isinstance(model, str) else "",
        f"target {target.name}" if target.name else "",
        target.runtime or "",
        f"{target.threads} thread{'s' if target.threads != 1 else ''}" if target.threads is not None else "",
        f"batch {target.batch_size}" if target.batch_size is not None else "",
    ]
    return " · ".join(part for part in parts if part)

"""The history of releases: latency, speedup and accuracy one after the other, and what changed in the plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from pipeline.release import Release
from pipeline.release_changes import Changes, accuracy_interval, compare, level_text, number
from reports import formatting
from reports.document import (
    NOT_MEASURED,
    Chart,
    Column,
    KeyFigure,
    NextStep,
    Notice,
    Panel,
    Section,
    Series,
    Summary,
    Table,
)


@dataclass(frozen=True, slots=True)
class History:
    """Releases from the first to the last; ``changes`` [releases - 1] leads from each to the next."""

    releases: tuple[Release, ...]
    changes: tuple[Changes, ...]

    @property
    def regressions(self) -> list[str]:
        """What became worse where, in words."""
        return [
            f"{figure.name} {' → '.join(figure.texts[:2])}, from {change.before.name} to {change.after.name}"
            for change in self.changes
            for figure in change.regressions
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return {
            "releases": [{"name": r.name, **r.certificate.model_dump(mode="json")} for r in self.releases],
            "changes": [change.to_json() for change in self.changes],
            "regressions": self.regressions,
        }


def history_of(releases: Sequence[Release]) -> History:
    """Releases by the time of their certificates, or in the order given where one does not say its time."""
    times = [(created, place) for place, release in enumerate(releases) if (created := release.certificate.created)]
    if len(times) == len(releases):
        releases = [releases[place] for _, place in sorted(times)]
    return History(tuple(releases), tuple(compare(one, two) for one, two in pairwise(releases)))


def history_table(history: History) -> Table:
    """A row a release, for terminals and pages."""
    columns = (
        Column("Release", numeric=False),
        Column("Measured", numeric=False),
        Column("Status", numeric=False),
        Column("Latency", "ms"),
        Column("Speedup"),
        Column("Accuracy"),
        Column("Model file"),
    )
    return Table("Releases", columns, tuple(_row(release) for release in history.releases))


def _row(release: Release) -> tuple[str, ...]:
    certificate = release.certificate
    return (
        release.name,
        f"{certificate.created:%Y-%m-%d}" if certificate.created else NOT_MEASURED,
        certificate.status,
        formatting.milliseconds(certificate.compressed.latency_s),
        number("ratio", certificate.measured_speedup, (certificate.ci_low, certificate.ci_high)),
        formatting.percent(certificate.accuracy.compressed),
        formatting.file_size(certificate.file_bytes.compressed_onnx),
    )


def change_texts(change: Changes) -> tuple[str, ...]:
    """What changed from one release to the next, line by line."""
    judged = [f"{f.name} {f.texts[2]}, {f.verdict} ({f.why})" for f in change.figures if f.why]
    return (f"{change.before.name} → {change.after.name}: {change.plan_text}", *judged)


def history_page(history: History) -> Summary:
    """The history as a page with charts."""
    last = history.releases[-1]
    certificate = last.certificate
    return Summary(
        title="Release history",
        subtitle=f"{len(history.releases)} releases",
        status=certificate.status,
        headline=f"{len(history.regressions) or 'No'} regression{'s' * (len(history.regressions) != 1)} shown",
        notices=tuple(Notice("warning", "Regression", text) for text in history.regressions),
        key_figures=(
            KeyFigure("Speedup", formatting.speedup(certificate.measured_speedup), last.name),
            KeyFigure("Latency", f"{formatting.milliseconds(certificate.compressed.latency_s)} ms", last.name),
            KeyFigure("Accuracy", formatting.percent(certificate.accuracy.compressed), last.name),
        ),
        sections=(
            Section("releases", "Releases", (_ABOUT,), (_chart(history), history_table(history))),
            Section("changes", "What changed", parts=tuple(_changes_table(change) for change in history.changes)),
        ),
        next_steps=(
            NextStep(
                "Look at one step", "Every figure, unit and version of two releases:", "pipeline diff BEFORE AFTER"
            ),
        ),
    )


_ABOUT = (
    "A release is called better or worse than the one before only where their intervals part, and not judged where "
    "they were measured on different hosts or targets. Latencies were measured at different times: they are shown, "
    "not judged."
)


def _chart(history: History) -> Chart:
    certificates = [release.certificate for release in history.releases]
    accuracies = [accuracy_interval(certificate.accuracy, paired=False) for certificate in certificates]
    panels = (
        _panel(history, "speedup (x)", [(c.ci_low, c.measured_speedup, c.ci_high) for c in certificates]),
        _panel(history, "latency (ms)", [(1000 * c.compressed.latency_s,) for c in certificates]),
        _panel(history, "accuracy (%)", [(100 * a.low, 100 * a.value, 100 * a.high) for a in accuracies]),
    )
    description = "Speedup, latency and accuracy of every release; pale lines bound the intervals."
    return Chart("history", "Speedup, latency and accuracy over releases", description, panels)


def _panel(history: History, label: str, values: Sequence[tuple[float, ...]]) -> Panel:
    """Points of every release, and pale lines along both ends where ``values`` are (low, value, high)."""
    x = tuple(float(place) for place in range(len(values)))
    middle = len(values[0]) // 2
    bounds = [] if middle == 0 else [0, 2]
    lines = [Series("", x, tuple(value[bound] for value in values), "line", "faint") for bound in bounds]
    points = Series("", x, tuple(value[middle] for value in values), "points", "compressed")
    names = tuple(release.name for release in history.releases)
    return Panel("release", label, (*lines, points), categories=names)


def _changes_table(change: Changes) -> Table:
    figures = [
        (figure.name, *figure.texts, f"{figure.verdict}: {figure.why}" if figure.why else "")
        for figure in change.figures
    ]
    units = [
        (unit.name, level_text(unit.before), level_text(unit.after), f"{formatting.points(unit.by)} points", "")
        for unit in change.units or ()
    ]
    facts = [(fact.name, fact.before, fact.after, "", "") for fact in change.facts]
    return Table(
        f"From {change.before.name} to {change.after.name}",
        tuple(Column(title, numeric=False) for title in ("What", "Before", "After", "Change", "Verdict")),
        (*figures, *units, *facts),
    )

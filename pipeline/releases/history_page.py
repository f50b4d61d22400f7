"""The history of releases as a page with charts."""

from collections.abc import Sequence

from pipeline.releases.history import History, history_table
from pipeline.releases.release_changes import Changes, accuracy_interval, level_text
from reports import formatting
from reports.document import (
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

_ABOUT = (
    "A release is called better or worse than the one before only where their intervals part, and not judged where "
    "they were measured on different hosts or targets. Latencies were measured at different times: they are shown, "
    "not judged."
)


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
        (unit.name, level_text(unit.before), level_text(unit.after), unit.by_text, "") for unit in change.units or ()
    ]
    facts = [(fact.name, fact.before, fact.after, "", "") for fact in change.facts]
    return Table(
        f"From {change.before.name} to {change.after.name}",
        tuple(Column(title, numeric=False) for title in ("What", "Before", "After", "Change", "Verdict")),
        (*figures, *units, *facts),
    )

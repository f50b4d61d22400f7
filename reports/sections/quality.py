"""What it costs: accuracy, the plan against other allocators, correction and training."""

from collections.abc import Sequence

from reports.document import NOT_MEASURED, Chart, Column, Panel, Role, Section, Series, Table
from reports.formatting import count, percent, points, significant, speedup
from reports.records import Accuracy, ComparisonFile, ComparisonRow, HistoryPoint, Run
from reports.samples import thinned
from reports.sections.tables import absent, table, text_or

MANY_SAMPLES = 1000
CURVE_POINTS = 300


def accuracy_drop(accuracy: Accuracy) -> float | None:
    """Dense − compressed as a fraction."""
    if accuracy.dense is None or accuracy.compressed is None:
        return None
    return accuracy.dense - accuracy.compressed


def digits_of(n: float | None) -> int:
    """Digits behind the point of a percentage of ``n`` samples."""
    return 2 if n is not None and n >= MANY_SAMPLES else 1


def accuracy_section(run: Run) -> Section:
    """Accuracy of both models, and of the plan against plain ones at the same measured latency."""
    accuracy, comparison = run.certificate.accuracy, run.comparison
    text: list[str] = []
    parts: list[Chart | Table] = []
    if accuracy.dense is None and accuracy.compressed is None:
        text.append(absent("Accuracy", run.certificate.FILE, run.absent))
    else:
        parts.append(_accuracy_table(accuracy))
    if comparison.rows:
        parts += [*_comparison_chart(comparison), _comparison_table(comparison.rows)]
    else:
        text.append(absent("The plan against plain ones", comparison.FILE, run.absent))
    text += [f"No {name} to compare with: {why}" for name, why in comparison.unreachable.items()]
    return Section("accuracy", "Accuracy", tuple(text), tuple(parts))


def tuning_section(run: Run) -> Section:
    """How post-training correction and gradual pruning went."""
    text: list[str] = []
    parts: list[Chart | Table] = []
    for key, title, record in (
        ("correction", "Post-training correction", run.correction),
        ("training", "Gradual pruning", run.training),
    ):
        file, history, accuracy = record.FILE, record.history, record.accuracy
        if not history:
            unasked = key == "training" and run.run.config.get("epochs") == 0
            text.append(f"{title}: not asked for (--epochs 0)." if unasked else absent(title, file, run.absent))
            continue
        course = f"{_course(history)}."
        if accuracy is not None:
            course += f" Accuracy on held-out data afterwards: {percent(accuracy)}."
        chart = _history_chart(key, title, course, history)
        if chart:
            parts.append(chart)
        else:
            text.append(f"{title}: {course}")
    if not run.training.ships:
        text.append("The corrected network ships: its loss on training samples is lower. More epochs may help.")
    return Section("tuning", "Correction and training", tuple(text), tuple(parts))


def _accuracy_table(accuracy: Accuracy) -> Table:
    digits = digits_of(accuracy.n)
    drop = accuracy_drop(accuracy)
    rows = [
        ("Dense", percent(accuracy.dense, digits)),
        ("Compressed", percent(accuracy.compressed, digits)),
        ("Difference", _points(None if drop is None else -drop, digits)),
        ("Interval of the difference", _points_interval(accuracy, digits)),
        ("Held-out samples", count(accuracy.n)),
    ]
    rows += [
        (f"{name}: dense → compressed", f"{percent(other.dense, digits)} → {percent(other.compressed, digits)}")
        for name, other in accuracy.others.items()
    ]
    metric = accuracy.metric[:1].upper() + accuracy.metric[1:]
    said = tuple(row for row in rows if row[1] != NOT_MEASURED)
    return Table(f"{metric} on held-out data", (Column("Model", numeric=False), Column("Value")), said)


def _points(difference: float | None, digits: int) -> str:
    return NOT_MEASURED if difference is None else f"{points(difference, digits)} points"


def _points_interval(accuracy: Accuracy, digits: int) -> str:
    if accuracy.ci_low is None or accuracy.ci_high is None:
        return NOT_MEASURED
    return f"{points(accuracy.ci_low, digits)} to {points(accuracy.ci_high, digits)} points"


def _row_name(row: ComparisonRow) -> str:
    return f"{row.allocator} (this plan)" if row.is_ours else row.allocator


def _comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    return table(
        "Allocators near the same measured latency",
        rows,
        (
            (Column("Allocator", numeric=False), _row_name),
            (Column("Measured speedup"), lambda row: speedup(row.measured_speedup)),
            (Column("Accuracy"), lambda row: percent(row.accuracy, 2)),
            (Column("Sparsity"), lambda row: percent(row.sparsity)),
            (Column("Correction", numeric=False), lambda row: text_or(row.correction)),
        ),
    )


def _comparison_chart(comparison: ComparisonFile) -> list[Chart]:
    placed = [
        (row, row.measured_speedup, row.accuracy)
        for row in comparison.rows
        if row.measured_speedup is not None and row.accuracy is not None
    ]
    names = list(dict.fromkeys(_row_name(row) for row, _, _ in placed))
    if len(placed) < 2:
        return []
    roles: tuple[Role, ...] = ("second", "third", "fourth", "baseline")
    series, others = [], 0
    for name in names:
        mine = [(row, x, y) for row, x, y in placed if _row_name(row) == name]
        ours = mine[0][0].is_ours
        role: Role = "compressed" if ours else roles[others % len(roles)]
        others += not ours
        xs, ys = tuple(x for _, x, _ in mine), tuple(100 * y for _, _, y in mine)
        series.append(Series(name, xs, ys, "points", role))
    said = "; ".join(f"{_row_name(row)} {percent(y)} at {speedup(x)}" for row, x, y in placed[:8])
    panel = Panel("measured speedup over the baseline (x)", "accuracy (%)", tuple(series), x_range=_wide(placed))
    return [Chart("comparison", "Accuracy at the measured speedup", f"{said}.", (panel,))]


def _wide(placed: Sequence[tuple[ComparisonRow, float, float]]) -> tuple[float, float]:
    """A range of speedups in which differences of less than a percent look as small as they are."""
    speedups = [x for _, x, _ in placed]
    return 0.95 * min(speedups), 1.05 * max(speedups)


def _course(history: Sequence[HistoryPoint]) -> str:
    """What the first and the last point say."""
    first, last = history[0], history[-1]
    said = f"loss {significant(first.loss)} → {significant(last.loss)}"
    if first.accuracy is None or last.accuracy is None:
        return said
    return f"{said}, accuracy while tuning {percent(first.accuracy)} → {percent(last.accuracy)}"


def _history_chart(key: str, title: str, course: str, history: Sequence[HistoryPoint]) -> Chart | None:
    kept = [history[i] for i in thinned(len(history), CURVE_POINTS)]
    unit = "step" if any(point.step is not None for point in kept) else "epoch"
    where = [point.step if unit == "step" else point.epoch for point in kept]
    panels = []
    for label, values in (
        ("loss", [point.loss for point in kept]),
        ("accuracy (%)", [None if point.accuracy is None else 100 * point.accuracy for point in kept]),
    ):
        placed = [(x, y) for x, y in zip(where, values, strict=True) if x is not None and y is not None]
        if len(placed) > 1:
            xs, ys = zip(*placed, strict=True)
            panels.append(Panel(unit, label, (Series("", xs, ys, "line", "compressed"),)))
    if not panels:
        return None
    description = f"{course[:1].upper()}{course[1:]}"
    return Chart(key, title, description, tuple(panels))

"""Whether the latency table can be believed, and how the search used it."""

from collections.abc import Sequence

import numpy as np

from reports.document import NOT_MEASURED, Chart, Panel, Role, Section, Series, Table
from reports.formatting import count, duration, percent, significant
from reports.records import Effort, Run, TableMeasurement
from reports.samples import thinned
from reports.sections.layers import rounds_table
from reports.sections.tables import absent, facts

LABELS_SHOWN = 6
TRACE_POINTS = 600


def prediction_section(run: Run) -> Section:
    """Predicted against measured latencies, and the rounds of the closed loop."""
    points = _placed(run.latency_table.measurements)
    fit = _fit_table(run, points)
    rounds = (rounds_table(run),) if run.plan.rounds else ()
    tables = (*((fit,) if fit.rows else ()), *rounds)
    charts = (_scatter(points),) if points else ()
    text = () if points else (absent("Predicted against measured", run.latency_table.FILE, run.absent),)
    return Section("prediction", "Predicted against measured", text, (*charts, *tables))


def _placed(measurements: Sequence[TableMeasurement]) -> list[tuple[str, float, float]]:
    return [
        (m.label, m.predicted_s, m.measured_s)
        for m in measurements
        if m.predicted_s is not None and m.measured_s is not None and m.predicted_s > 0 and m.measured_s > 0
    ]


def _fit_table(run: Run, points: Sequence[tuple[str, float, float]]) -> Table:
    fit = run.latency_table.fit_error
    rows = [
        ("Median error, cross-validated", percent(fit.median)),
        ("Mean error, cross-validated", percent(fit.mean)),
        ("Largest error, cross-validated", percent(fit.worst)),
        ("Plans in the fit", count(fit.n)),
    ]
    if points:
        error = float(np.median([abs(predicted - measured) / measured for _, predicted, measured in points]))
        rows.append(("Median error of the points shown", percent(error)))
        rows.append(("Points shown", count(len(points))))
    said = [row for row in rows if row[1] != NOT_MEASURED]
    return facts("Errors of the latency table", said, ("Figure", "Value"))


def _scatter(points: Sequence[tuple[str, float, float]]) -> Chart:
    labels = list(dict.fromkeys(label for label, _, _ in points))
    # Labels that name single plans say nothing in a legend.
    groups = labels if len(labels) <= LABELS_SHOWN else [""]
    roles: tuple[Role, ...] = ("baseline", "second", "third", "compressed", "fourth", "guide")
    series = [_diagonal(points)]
    for label, role in zip(groups, roles, strict=False):
        mine = [(x, y) for name, x, y in points if label in ("", name)]
        xs, ys = tuple(1000 * x for x, _ in mine), tuple(1000 * y for _, y in mine)
        series.append(Series(label if len(groups) > 1 else "", xs, ys, "points", role))
    error = float(np.median([abs(predicted - measured) / measured for _, predicted, measured in points]))
    return Chart(
        "prediction",
        "Predicted and measured latency of whole plans",
        f"{len(points)} plans as points; on the line, prediction and measurement agree. Median error {percent(error)}.",
        (Panel("predicted (ms)", "measured (ms)", tuple(series)),),
    )


def _diagonal(points: Sequence[tuple[str, float, float]]) -> Series:
    values = [1000 * value for _, *pair in points for value in pair]
    ends = (min(values), max(values))
    return Series("", ends, ends, "line", "guide")


def search_section(run: Run) -> Section:
    """The search's trace and effort."""
    search = run.plan.search
    rows = [
        ("Allocator", run.plan.allocator or NOT_MEASURED),
        ("Evaluations", count(search.evaluations)),
        ("Time", duration(search.seconds)),
    ]
    rows += _effort_rows(search.effort)
    trace = _trace(search.trace)
    if trace:
        rows.append(("Loss of the first plan", significant(trace[0][1])))
        rows.append(("Loss of the best plan", significant(trace[-1][2])))
    said = [row for row in rows if row[1] != NOT_MEASURED]
    text = () if trace else (absent("The search's trace", run.plan.FILE, run.absent),)
    charts = (_trace_chart(trace),) if len(trace) > 1 else ()
    tables = (facts("Search", said, ("Figure", "Value")),) if said else ()
    return Section("search", "Search", text, (*charts, *tables))


def _effort_rows(effort: Effort) -> list[tuple[str, str]]:
    """How fast plans were evaluated, where the time went, and what was not computed."""
    rows = []
    if effort.plans_a_second:
        rows.append(("Plans evaluated a second", significant(effort.plans_a_second)))
    parts = {
        "running the network": effort.network_s,
        "budget programs": effort.solving_s,
        "preparing": effort.preparing_s,
        "stitching": effort.stitching_s,
        "judging outputs": effort.loss_s,
    }
    shares = [f"{name} {percent(part / effort.seconds)}" for name, part in parts.items() if part and effort.seconds]
    if shares:
        rows.append(("Where the search's time went", ", ".join(shares)))
    if effort.batches_run and effort.batches_whole:
        rows.append(("Batches run, of all batches of all plans", percent(effort.batches_run / effort.batches_whole)))
    if effort.blocks_reused:
        share = effort.blocks_reused / (effort.blocks_reused + (effort.blocks_run or 0))
        rows.append(("Blocks' outputs taken from the plan before", percent(share)))
    return rows


def _trace(rows: Sequence[Sequence[float | str | None]]) -> list[tuple[float, float, float, str]]:
    """Evaluation, loss, incumbent's loss and phase of the rows that say all of it in numbers."""
    found = []
    for row in rows:
        numbers = [value for value in row[:3] if isinstance(value, float) and np.isfinite(value)]
        if len(numbers) == 3:
            evaluation, loss, incumbent = numbers
            found.append((evaluation, loss, incumbent, str(row[3]) if len(row) > 3 else ""))
    return found


def _trace_chart(trace: Sequence[tuple[float, float, float, str]]) -> Chart:
    shown = [trace[i] for i in thinned(len(trace), TRACE_POINTS)]
    phases = list(dict.fromkeys(phase for *_, phase in shown))[:LABELS_SHOWN]
    series = []
    roles: tuple[Role, ...] = ("baseline", "second", "third", "fourth", "guide", "faint")
    for phase, role in zip(phases, roles, strict=False):
        mine = [(x, y) for x, y, _, name in shown if name == phase]
        xs, ys = tuple(x for x, _ in mine), tuple(y for _, y in mine)
        series.append(Series(phase or "tried", xs, ys, "points", role))
    # Every improvement is kept, however long the trace.
    steps = [row for i, row in enumerate(trace) if i in (0, len(trace) - 1) or row[2] != trace[i - 1][2]]
    best = Series("best so far", tuple(row[0] for row in steps), tuple(row[2] for row in steps), "steps", "compressed")
    losses = [row[1] for row in shown]
    wide = min(losses) > 0 and max(losses) > 10 * min(losses)
    return Chart(
        "search",
        "Loss of the plans tried",
        f"{len(trace)} evaluations; the best plan's loss falls from {significant(trace[0][2])} "
        f"to {significant(trace[-1][2])}. A loss above it may be a bound or an estimate: evaluations stop early.",
        (Panel("evaluation", "calibration loss", (*series, best), log_y=wide),),
    )

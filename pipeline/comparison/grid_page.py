"""A comparison of combinations as a page: a table, and accuracy over measured speedup."""

from collections.abc import Sequence

from pipeline.comparison.grid import GridRow
from reports import formatting
from reports.document import Chart, Column, KeyFigure, NextStep, Panel, Role, Section, Series, Summary, Table

ROLES: tuple[Role, ...] = ("compressed", "second", "third", "fourth", "baseline", "guide", "faint")
ABOUT = (
    "Every plan was brought to its measured speedup by the same closed loop of solving, measuring and correcting the "
    "latency table, and its network corrected in the same way. Each row is a run folder, which `pipeline report` takes "
    "on to a certificate."
)


def grid_page(rows: Sequence[GridRow], metric: str) -> Summary:
    """The comparison as a page."""
    measured = [row for row in rows if row.accuracy is not None]
    reached = [row for row in measured if row.is_reached]
    best = {row.combination.speedup: row for row in sorted(reached, key=lambda row: row.accuracy or 0.0)}
    text = [ABOUT, *(f"{row.combination.name}: {row.why_not}" for row in rows if row.why_not)]
    text += [
        f"{row.combination.name} is slower than asked, {formatting.speedup(row.measured_speedup)}, and is no rival."
        for row in measured
        if not row.is_reached
    ]
    parts = (*((_chart(measured, metric),) if measured else ()), grid_table(rows, metric))
    return Summary(
        title="Comparison at the same measured latency",
        subtitle=f"{len(rows)} combinations",
        status="incomplete",
        headline=f"{len(reached)} of {len(rows)} combinations reach their speedup",
        notices=(),
        key_figures=tuple(
            KeyFigure(f"Best at {formatting.requested(speedup)}", formatting.percent(row.accuracy, 2), _method(row))
            for speedup, row in sorted(best.items())
        ),
        sections=(Section("comparison", "Combinations", tuple(text), parts),),
        next_steps=(NextStep("Certify one of them", "Any row can go on from its folder:", "pipeline report FOLDER"),),
    )


def grid_table(rows: Sequence[GridRow], metric: str) -> Table:
    """One row a combination."""
    titles = ("Allocator", "Criterion", "Solver")
    figures = ("Measured speedup", metric[:1].upper() + metric[1:], "Calibration loss", "Sparsity", "Evaluations")
    columns = [Column("Asked"), *(Column(title, numeric=False) for title in titles), *map(Column, figures)]
    return Table("Combinations at the same measured latency", tuple(columns), tuple(_cells(row) for row in rows))


def _cells(row: GridRow) -> tuple[str, ...]:
    asked = row.combination
    return (
        formatting.requested(asked.speedup),
        asked.allocator,
        asked.criterion,
        asked.solver,
        row.ended if row.why_not else formatting.speedup(row.measured_speedup),
        formatting.percent(row.accuracy, 2),
        formatting.significant(row.loss),
        formatting.percent(row.sparsity),
        formatting.count(row.evaluations),
    )


def _method(row: GridRow) -> str:
    asked = row.combination
    return f"{asked.allocator}, {asked.criterion}, {asked.solver}"


def _chart(rows: Sequence[GridRow], metric: str) -> Chart:
    series = []
    for number, method in enumerate(dict.fromkeys(_method(row) for row in rows)):
        mine = sorted(
            (row.measured_speedup or 0.0, 100 * (row.accuracy or 0.0)) for row in rows if _method(row) == method
        )
        xs, ys = (tuple(values) for values in zip(*mine, strict=True))
        series.append(Series(method, xs, ys, "points", ROLES[number % len(ROLES)]))
    speedups = [row.measured_speedup or 0.0 for row in rows]
    wide = (0.95 * min(speedups), 1.05 * max(speedups))
    panel = Panel("measured speedup over the baseline (x)", f"{metric} (%)", tuple(series), x_range=wide)
    said = f"{len(rows)} networks; the table below has their figures."
    return Chart("combinations", f"{metric[:1].upper()}{metric[1:]} at the measured speedup", said, (panel,))

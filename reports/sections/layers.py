"""The plan: what happens to every layer, and how much time that saves."""

from collections.abc import Sequence

from reports.document import Chart, Column, Panel, Section, Series, Table
from reports.formatting import (
    count,
    decimal,
    decimal_digits,
    milliseconds,
    milliseconds_digits,
    percent,
    significant,
    speedup,
)
from reports.records import LevelRecord, PlanFile, PlannedUnit, Round, Run
from reports.samples import ratio, total
from reports.sections.tables import absent, table, text_or

BASELINE_PRECISION = "fp32"
FIXED = "fixed"
"""Stands for the time of a unit that is a part of the fixed time."""


def plan_section(run: Run) -> Section:
    """The level of every unit in execution order, as chart and table."""
    units = run.plan.units
    if not units:
        return Section("plan", "Plan per layer", (absent("The plan", run.plan.FILE, run.absent),))
    charts = _plan_chart(units)
    return Section("plan", "Plan per layer", (_plan_text(run),), (*charts, _plan_table(run)))


def _plan_text(run: Run) -> str:
    plan = run.plan
    dense = sum(unit.level.family == "dense" for unit in plan.units)
    by = f" by the {plan.allocator} allocator" if plan.allocator else ""
    text = f"{len(plan.units)} units in execution order, levels chosen{by}; {dense} of them stay dense."
    if len(plan.contest) > 1:
        losses = ", ".join(f"{row.allocator} {significant(row.loss)}" for row in plan.contest if row.loss is not None)
        text += f" Once corrected it is the nearest to the dense network of those as fast; losses: {losses}."
    if (share := pruned_share(plan)) is not None:
        zeros = all(unit.level.family in ("dense", "unstructured", "block") for unit in plan.units)
        text += f" {percent(share)} of all their weights are {'zero' if zeros else 'gone'}."
    return text


def pruned_share(plan: PlanFile) -> float | None:
    """Fraction of the plan's weights that its levels remove, None if sizes are unknown."""
    removed = [
        None if unit.parameters is None else unit.parameters * (_removed(unit.level) or 0.0) for unit in plan.units
    ]
    sizes = [None if unit.parameters is None else float(unit.parameters) for unit in plan.units]
    return ratio(total(removed), total(sizes))


def _removed(level: LevelRecord) -> float | None:
    return 0.0 if level.family == "dense" else level.amount


def plan_precisions(plan: PlanFile) -> str | None:
    """The precisions of the plan's levels, ``fp32`` or ``fp32 and int8``, None if unknown."""
    precisions = {unit.level.precision for unit in plan.units if unit.level.precision is not None}
    return " and ".join(sorted(precisions)) or None


def _saved(unit: PlannedUnit) -> float | None:
    return None if unit.dense_s is None or unit.seconds is None else unit.dense_s - unit.seconds


def _plan_table(run: Run) -> Table:
    units, fixed_s = run.plan.units, run.latency_table.fixed_s
    digits = milliseconds_digits([unit.dense_s for unit in units])
    error_digits = decimal_digits([unit.error for unit in units])
    timed = [unit for unit in units if unit.prunable or unit.dense_s is not None]
    saved_s = total([_saved(unit) for unit in timed])
    dense_s, seconds = total([unit.dense_s for unit in timed]), total([unit.seconds for unit in timed])

    def time(unit: PlannedUnit, value_s: float | None) -> str:
        # A unit that stays dense and has no time of its own is a part of the fixed time.
        return FIXED if dense_s is not None and unit not in timed else milliseconds(value_s, digits)

    def share(unit: PlannedUnit) -> str:
        return percent(ratio(_saved(unit), saved_s)) if saved_s is None or unit in timed else ""

    sizes = total([None if unit.parameters is None else float(unit.parameters) for unit in units])
    return table(
        "Levels and predicted time" + _fixed_text(fixed_s),
        units,
        (
            (Column("Layer", numeric=False), lambda unit: unit.name),
            (Column("Shape", numeric=False), lambda unit: text_or(_shape(unit))),
            (Column("Weights"), lambda unit: count(unit.parameters)),
            (Column("Level", numeric=False), _level_cell),
            (Column("Removed"), lambda unit: percent(_removed(unit.level))),
            (Column("Dense", "ms"), lambda unit: time(unit, unit.dense_s)),
            (Column("Planned", "ms"), lambda unit: time(unit, unit.seconds)),
            (Column("Saved", "ms"), lambda unit: time(unit, _saved(unit))),
            (
                Column("Of all saved"),
                share,
            ),
            (Column("Error"), lambda unit: decimal(unit.error, error_digits)),
        ),
        (
            "All units",
            "",
            count(sizes),
            "",
            percent(pruned_share(run.plan)),
            milliseconds(dense_s, digits),
            milliseconds(seconds, digits),
            milliseconds(saved_s, digits),
            "",
            "",
        ),
    )


def _fixed_text(fixed_s: float | None) -> str:
    return "" if fixed_s is None else f"; everything else takes a fixed {milliseconds(fixed_s)} ms"


def _shape(unit: PlannedUnit) -> str | None:
    return None if unit.shape is None else "\N{MULTIPLICATION SIGN}".join(str(size) for size in unit.shape)


def _level_cell(unit: PlannedUnit) -> str:
    level = unit.level
    name = level.family if level.precision in (None, BASELINE_PRECISION) else f"{level.family}, {level.precision}"
    return name if unit.prunable else f"{name} (kept)"


def _plan_chart(units: Sequence[PlannedUnit]) -> tuple[Chart, ...]:
    names = tuple(unit.name for unit in units)
    removed = [(float(i), 100 * share) for i, unit in enumerate(units) if (share := _removed(unit.level)) is not None]
    panels = []
    if removed:
        bars = Series("", *_columns(removed), mark="bars", role="compressed")
        panels.append(Panel("", "removed (%)", (bars,), categories=names, y_range=(0, 100)))
    timed = [
        (float(i), 1000 * unit.dense_s, 1000 * unit.seconds)
        for i, unit in enumerate(units)
        if unit.dense_s is not None and unit.seconds is not None
    ]
    if timed:
        dense = Series("dense", *_columns([(i, before) for i, before, _ in timed]), mark="bars", role="baseline")
        planned = Series("planned", *_columns([(i, after) for i, _, after in timed]), mark="bars", role="compressed")
        panels.append(Panel("", "predicted time (ms)", (dense, planned), categories=names))
    if not panels:
        return ()
    return (Chart("plan", "Removed weights and predicted time", _plan_description(units), tuple(panels), stacked=True),)


def _columns(pairs: Sequence[tuple[float, float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(x for x, _ in pairs), tuple(y for _, y in pairs)


def _plan_description(units: Sequence[PlannedUnit]) -> str:
    text = f"Bars for {len(units)} layers in execution order: the share of the weights removed"
    if all(_saved(unit) is None for unit in units):
        return f"{text}."
    best = max(units, key=lambda unit: _saved(unit) or float("-inf"))
    saved = milliseconds(_saved(best))
    return f"{text}, and the predicted time dense and planned. {best.name} saves most, {saved} ms."


def rounds_table(run: Run) -> Table:
    """The closed loop, round by round."""

    def deviation(row: Round) -> str:
        quotient = ratio(row.measured_speedup, row.predicted_speedup)
        return percent(None if quotient is None else quotient - 1)

    return table(
        "Rounds of the closed loop",
        list(enumerate(run.plan.rounds, start=1)),
        (
            (Column("Round"), lambda row: str(row[1].round if row[1].round is not None else row[0])),
            (Column("Predicted speedup"), lambda row: speedup(row[1].predicted_speedup)),
            (Column("Measured speedup"), lambda row: speedup(row[1].measured_speedup)),
            (Column("Measured over predicted"), lambda row: deviation(row[1])),
            (Column("Loss"), lambda row: significant(row[1].loss)),
        ),
    )

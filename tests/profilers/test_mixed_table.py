"""A latency table over channels and precisions: unlike levels by unit, borders between precisions."""

import numpy as np
import pytest

from profilers.latency_table import Choice, LatencyTable, PlanMeasurement, TableUnit, count_borders
from profilers.profile import anchor_plans, cheapest, neighbours, random_plan, uniform_plan
from profilers.table_fit import fit_latency_table
from targets.levels import DENSE, Level

AMOUNTS = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75)
LEVELS = tuple(
    Level("channel" if amount else "dense", amount, precision)
    for amount in (0.0, *AMOUNTS)
    for precision in ("fp32", "int8")
)
FIXED, BORDER, INT8 = 0.08, 0.006, 0.35
EVERY, COARSE, KEPT = tuple(range(14)), (0, 1, 8, 9), (0, 1)
"""Positions of the levels: of wide blocks, of narrow ones that can only be halved, of layers outside of blocks."""
UNITS = (
    TableUnit("first", "first", 0.04, True, KEPT),
    *(TableUnit(f"wide{i}", "wide", 0.10, True, EVERY) for i in range(5)),
    *(TableUnit(f"narrow{i}", "narrow", 0.06, True, COARSE) for i in range(5)),
    TableUnit("last", "last", 0.02, True, KEPT),
)


def time(choice: Choice) -> float:
    total = FIXED + BORDER * count_borders(UNITS, LEVELS, choice)
    for unit, index in zip(UNITS, choice, strict=True):
        level = LEVELS[index]
        total += unit.work * level.density**1.3 * (INT8 if level.precision == "int8" else 1.0)
    return total


def measured_table(noise: float, seed: int = 0) -> LatencyTable:
    rng = np.random.default_rng(seed)
    plans = anchor_plans(UNITS, LEVELS, 9) + [random_plan(UNITS, LEVELS, rng) for _ in range(50)]
    dense = time(uniform_plan(UNITS, 0))
    measured = [PlanMeasurement(p, time(p) / dense * rng.lognormal(0, noise)) for p in plans]
    return fit_latency_table(UNITS, LEVELS, 0.01, measured, host_id="host", target={})


def test_plans_only_have_levels_that_units_have() -> None:
    rng = np.random.default_rng(0)
    table = measured_table(0.0)
    plans = anchor_plans(UNITS, LEVELS, 9) + [random_plan(UNITS, LEVELS, rng) for _ in range(40)]
    plans += neighbours(table, plans[-1], 20, rng)
    assert all(level in unit.levels for plan in plans for unit, level in zip(UNITS, plan, strict=True))
    assert uniform_plan(UNITS, 0) == (0,) * len(UNITS)
    assert np.isfinite(table.costs()).tolist() == table.available().tolist()
    assert np.isinf(table.costs()[0]).sum() == 12


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_fresh_plans_are_predicted(noise: float) -> None:
    table = measured_table(noise)
    rng = np.random.default_rng(9)
    fresh = [random_plan(UNITS, LEVELS, rng) for _ in range(60)]
    dense = time(uniform_plan(UNITS, 0))
    errors = [abs(table.predict(plan) / 0.01 / (time(plan) / dense) - 1) for plan in fresh]
    assert np.median(errors) < 0.01 + noise
    assert table.fit_error.median < 0.01 + 2 * noise


def test_a_border_between_precisions_is_found_and_charged_to_fp32() -> None:
    table = measured_table(0.0)
    dense = time(uniform_plan(UNITS, 0))
    assert table.border_s == pytest.approx(0.01 * BORDER / dense, rel=0.4)
    paid = table.costs() - table.seconds
    assert paid[1, LEVELS.index(DENSE)] == pytest.approx(table.border_s)
    assert paid[1, LEVELS.index(Level("channel", 0.5))] == pytest.approx(table.border_s)
    assert paid[1, LEVELS.index(Level("channel", 0.5, "int8"))] == 0
    assert cheapest(table) < 0.3 * table.dense_s


def test_the_table_survives_its_file(tmp_path) -> None:
    table = measured_table(0.01)
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again.units == table.units
    assert again.levels == table.levels
    plan = random_plan(UNITS, LEVELS, np.random.default_rng(1))
    assert again.predict(plan) == table.predict(plan)


def test_measurements_that_make_no_sense_leave_a_table_that_can_be_asked() -> None:
    """On a machine with neighbours a few plans may seem to take no time at all."""
    plans = [uniform_plan(UNITS, position) for position in range(14)]
    measured = [PlanMeasurement(plan, 1e-6) for plan in plans]
    table = fit_latency_table(UNITS, LEVELS, 0.01, measured, host_id="host", target={})
    assert 0 < cheapest(table) <= 0.01
    assert all(0 < table.speedup(plan) <= 1000 for plan in plans)

"""The fitted table against a network whose latency is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from profilers.latency_table import LatencyTable, PlanMeasurement, TableUnit, count_borders
from profilers.profile import (
    PlanCounts,
    anchor_plans,
    cheapest,
    enough_plans,
    neighbours,
    plan_near,
    profile,
    random_plan,
)
from profilers.table_fit import fit_latency_table, refit
from targets.errors import ArtifactError, RuntimeMissingError
from tests.profilers.simulated import LEVELS, SimulatedBench, relative, units

DENSE_S = 0.04


def fit(plans: list[PlanMeasurement]) -> LatencyTable:
    return fit_latency_table(units(), LEVELS, DENSE_S, plans, host_id="host", target={"threads": 2})


def measured_table(noise: float, count: int = 80, seed: int = 0) -> LatencyTable:
    rng = np.random.default_rng(seed)
    bench = SimulatedBench(noise, seed)
    choices = anchor_plans(units(), LEVELS, 10) + [random_plan(units(), LEVELS, rng) for _ in range(count)]
    return fit([plan for plan in bench(choices, "random") if plan])


def errors_on_fresh_plans(table: LatencyTable, count: int = 60) -> np.ndarray:
    rng = np.random.default_rng(1234)
    fresh = [random_plan(units(), LEVELS, rng) for _ in range(count)]
    predicted = np.array([table.predict(plan) for plan in fresh]) / DENSE_S
    truth = np.array([relative(plan) for plan in fresh])
    return np.abs(predicted / truth - 1)


def test_a_table_from_exact_measurements_predicts_fresh_plans() -> None:
    assert np.median(errors_on_fresh_plans(measured_table(noise=0.0))) < 0.01


def test_noise_of_one_percent_leaves_predictions_within_two() -> None:
    table = measured_table(noise=0.01)
    assert np.median(errors_on_fresh_plans(table)) < 0.02
    assert table.fit_error.median < 0.025


def test_the_cross_validated_error_is_the_noise_that_no_table_can_explain() -> None:
    table = measured_table(noise=0.03)
    median_of_noise = 0.6745 * 0.03
    assert 0.7 * median_of_noise < table.fit_error.median < 1.6 * median_of_noise


def test_costs_fall_with_sparsity_and_are_never_negative() -> None:
    table = measured_table(noise=0.03)
    assert (table.seconds >= 0).all()
    assert (np.diff(table.seconds[:, 1:], axis=1) <= 1e-12).all()


def test_units_of_one_group_cost_the_same_and_dense_units_are_part_of_the_fixed_time() -> None:
    table = measured_table(noise=0.01)
    np.testing.assert_array_equal(table.seconds[1], table.seconds[4])
    assert not table.seconds[0].any()
    assert table.fixed_s > 0


def test_additive_costs_charge_everything() -> None:
    table = measured_table(noise=0.0)
    sparse = tuple(20 if unit.prunable else 0 for unit in units())
    total = table.fixed_s + table.costs()[np.arange(len(sparse)), list(sparse)].sum()
    assert total == pytest.approx(table.predict(sparse))
    assert cheapest(table) <= total


def test_borders_are_counted_between_prunable_neighbours() -> None:
    choice = [0, *([5] * 12), 0]
    assert count_borders(units(), LEVELS, tuple(choice)) == 0
    choice[4] = 0
    assert count_borders(units(), LEVELS, tuple(choice)) == 2


def test_a_measurement_corrects_the_table_where_it_was_made() -> None:
    table = measured_table(noise=0.0, count=20)
    plan = (0, *([30] * 12), 0)
    slower = relative(plan) * 1.1
    before = abs(table.predict(plan) / DENSE_S / slower - 1)
    after = refit(table, [PlanMeasurement(plan, slower, weight=20.0, kind="solved")])
    assert abs(after.predict(plan) / DENSE_S / slower - 1) < before / 2


def test_a_table_survives_the_disk(tmp_path: Path) -> None:
    table = measured_table(noise=0.02)
    path = tmp_path / "latency_table.json"
    table.save(path)
    read = LatencyTable.load(path)
    np.testing.assert_array_equal(read.seconds, table.seconds)
    assert (read.units, read.levels, read.measurements) == (table.units, table.levels, table.measurements)
    assert read.predict((0, *([7] * 12), 0)) == table.predict((0, *([7] * 12), 0))


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}'])
def test_a_broken_table_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "latency_table.json"
    path.write_text(damage)
    with pytest.raises(ArtifactError, match=r"latency_table\.json"):
        LatencyTable.load(path)


def test_a_table_of_a_newer_version_says_so(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    measured_table(noise=0.0, count=5).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 2}))
    with pytest.raises(ArtifactError, match="schema 2"):
        LatencyTable.load(path)


def propose(table: LatencyTable, budget_s: float, rng: np.random.Generator) -> tuple[int, ...]:
    return plan_near(table, budget_s, rng)


def run_profile(bench: SimulatedBench, speedup: float) -> LatencyTable:
    return profile(
        units(),
        LEVELS,
        DENSE_S,
        bench,
        propose,
        speedup=speedup,
        seed=0,
        host_id="host",
        target={},
        counts=PlanCounts(),
    )


def test_profiling_measures_the_promised_number_of_plans_near_the_operating_point() -> None:
    bench = SimulatedBench(noise=0.005)
    table = run_profile(bench, speedup=3.0)
    assert bench.measured == PlanCounts().total == len(table.measurements)
    near = [plan for plan in table.measurements if abs(plan.relative * 3 - 1) < 0.2]
    assert len(near) > 20


def test_more_shapes_of_layers_take_more_plans_within_limits() -> None:
    def shapes(count: int) -> list[TableUnit]:
        groups = [TableUnit(f"unit {number}", f"shape {number // 2}", 1.0, True) for number in range(2 * count)]
        return [*groups, TableUnit("classifier", "dense", 1.0, prunable=False)]

    assert [enough_plans(shapes(count)) for count in (1, 14, 17, 40)] == [42, 42, 51, 60]
    assert all(abs(PlanCounts.of(total).total - total) <= 2 for total in range(12, 200))


def test_profiling_gives_up_early_on_a_hopeless_request() -> None:
    bench = SimulatedBench(noise=0.005)
    table = run_profile(bench, speedup=50.0)
    assert bench.measured < PlanCounts().total / 2
    assert table.dense_s / cheapest(table) < 50


def test_profiling_a_runtime_that_fails_on_every_plan_is_an_error() -> None:
    with pytest.raises(RuntimeMissingError, match="every plan"):
        profile(
            units(),
            LEVELS,
            DENSE_S,
            lambda choices, kind: [None] * len(choices),
            propose,
            speedup=2,
            seed=0,
            host_id="host",
            target={},
        )


def test_same_seed_same_plans() -> None:
    tables = [run_profile(SimulatedBench(noise=0.005), speedup=2.5) for _ in range(2)]
    assert tables[0].measurements == tables[1].measurements


def test_neighbours_keep_dense_units_dense() -> None:
    table = measured_table(noise=0.0, count=5)
    plan = (0, *([41] * 12), 0)
    for near in neighbours(table, plan, 20, np.random.default_rng(0)):
        assert near[0] == near[-1] == 0
        assert all(38 <= level <= 41 for level in near[1:-1])


def test_a_fit_needs_measurements() -> None:
    with pytest.raises(ValueError, match="measured plans"):
        fit([])

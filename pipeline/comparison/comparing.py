"""What plain allocators would have given at the same measured latency, with the same correction."""

from typing import Any

from calibration.errors import DataError
from pipeline.comparison.nncf_int8 import nncf_int8
from pipeline.comparison.reduced_float import reduced_floats
from pipeline.context import Run
from pipeline.families.int8 import PRECISION
from pipeline.planning.closed_loop import ACCEPTED
from pipeline.planning.measuring import PlanBench
from pipeline.planning.plain_plans import plain_allocators, solve_plainly
from pipeline.planning.plan import load_plan, planned_sparsity
from pipeline.training.corrections import Corrections
from pipeline.training.recovery import accuracy_of, in_int8
from profilers.latency_table import Choice, LatencyTable
from targets.errors import ArtifactError, RuntimeMissingError, SpeedupError
from targets.levels import Level

FAST_ENOUGH = (0.0, ACCEPTED[1])
"""Measured over requested, less one, of a plain plan: no certificate is to come for which it would need a margin."""


def compare_with_baselines(run: Run) -> dict[str, Any]:
    """The run's plan and plain ones that were measured as fast, all corrected after training and nothing more."""
    _, plan = load_plan(run.folder.file("plan.json"), run.units)
    corrections = Corrections(run)
    rows: list[dict[str, Any]] = []
    unreachable: dict[str, str] = {}
    contest = plan["contest"] if plan["contest"] and plan["contest"][0]["choice"] == plan["choice"] else []  # same aim
    met = {row["allocator"]: (tuple(row["choice"]), row["measured_speedup"]) for row in contest}
    met[plan["allocator"]] = (tuple(plan["choice"]), plan["measured_speedup"])
    for allocator in dict.fromkeys([plan["allocator"], *met, *plain_allocators(run)]):
        try:
            choice, measured_speedup = met.get(allocator) or _solved(run, allocator)
            rows.append(
                _row(run, corrections, allocator, choice, measured_speedup)
                | {"is_ours": allocator == plan["allocator"]}
            )
        except (SpeedupError, RuntimeMissingError, ArtifactError, DataError) as error:  # ours is certified all the same
            unreachable[allocator] = str(error)
    if PRECISION in run.families:
        rows += _plain_int8(run)
    for name, rivals in {"nncf int8": nncf_int8, "dense in fewer bits": reduced_floats}.items():
        try:
            rows += rivals(run)
        except RuntimeMissingError as error:
            unreachable[name] = str(error)
    passes, budget_s = run.config.correction_passes, run.config.correction_budget
    correction = f"batch norm re-estimated, outputs matched in up to {passes} passes and {budget_s:g} s"
    return {"schema": 1, "rows": [{"correction": correction} | row for row in rows], "unreachable": unreachable}


def _plain_int8(run: Run) -> list[dict[str, Any]]:
    """All layers in int8 and nothing else: what a user would pick without a search; none if it does not run."""
    level = run.levels.index(Level(precision=PRECISION))
    choice = tuple(unit.nearest_level(level) for unit in run.table_units)
    try:
        measured = PlanBench(run).solved(choice, {})
    except RuntimeMissingError:
        return []
    network = in_int8(run, run.copy_of_dense(), run.plan_of(choice))
    return [
        {
            "allocator": "plain int8",
            "measured_speedup": 1 / measured.relative,
            "accuracy": accuracy_of(run, network),
            "sparsity": 0.0,
            "is_ours": False,
            "correction": "none",
        }
    ]


def _solved(run: Run, allocator: str) -> tuple[Choice, float]:
    table = LatencyTable.load(run.folder.file("latency_table_corrected.json"))
    found = solve_plainly(run, allocator, table, run.aims.current, run.reporter.say, FAST_ENOUGH)
    return found.choice, found.measured_speedup


def _row(run: Run, corrections: Corrections, allocator: str, choice: Choice, measured_speedup: float) -> dict[str, Any]:
    return {
        "allocator": allocator,
        "measured_speedup": measured_speedup,
        "accuracy": corrections.record(choice)["accuracy"],
        "sparsity": planned_sparsity(run.plan_of(choice), run.units),
    }

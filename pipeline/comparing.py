"""What plain allocators would have given at the same measured latency, with the same correction."""

from typing import Any

from pipeline.compression.database import Database
from pipeline.context import Run
from pipeline.plan import load_plan, sparsity_of
from pipeline.recovery import corrected_network
from pipeline.run_folder import read_json
from pipeline.searching import Searcher, solve_in_loop
from profilers.latency_table import LatencyTable
from targets.errors import SpeedupError

BASELINES = ("uniform", "global-magnitude")


def compare_with_baselines(run: Run, database_key: str) -> dict[str, Any]:
    """The run's plan and plain ones that were measured as fast, all corrected after training and nothing more."""
    _, plan = load_plan(run.folder.file("plan.json"), run.units)
    ours = {
        "allocator": plan["allocator"],
        "measured_speedup": plan["measured_speedup"],
        "accuracy": read_json(run.folder.file("correction.json"))["accuracy"],
        "sparsity": sparsity_of(run.plan_of(tuple(plan["choice"])), run.units),
        "is_ours": True,
    }
    rows, unreachable = [ours], {}
    for allocator in BASELINES:
        if allocator != plan["allocator"]:
            try:
                rows.append(_baseline(run, allocator, database_key))
            except SpeedupError as error:
                unreachable[allocator] = str(error)
    correction = f"batch norm re-estimated, outputs matched in {run.config.correction_passes} passes"
    return {"schema": 1, "rows": [row | {"correction": correction} for row in rows], "unreachable": unreachable}


def _baseline(run: Run, allocator: str, database_key: str) -> dict[str, Any]:
    searcher = Searcher(run, Database(run.folder.file("database")), allocator, database_key)
    table = LatencyTable.load(run.folder.file("latency_table_corrected.json"))
    found = solve_in_loop(run, searcher, table, run.aim(), lambda text: run.reporter.say(f"{allocator}, {text}"))
    _, record = corrected_network(run, run.plan_of(found.choice))
    return {
        "allocator": allocator,
        "measured_speedup": found.measured_speedup,
        "accuracy": record["accuracy"],
        "sparsity": sparsity_of(run.plan_of(found.choice), run.units),
        "is_ours": False,
    }

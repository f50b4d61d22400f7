"""What could be had instead: plans at other speedups, slower for who lost too much accuracy, faster for who did not."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from calibration.errors import DataError
from pipeline.compression.database import Database
from pipeline.context import Run
from pipeline.planning.closed_loop import REFITS
from pipeline.planning.contest import BEST, SEARCH
from pipeline.planning.plan import coefficients_of, load_plan
from pipeline.planning.searching import Searcher
from pipeline.run_folder import digest, file_digest, read_json, write_json
from pipeline.search.budget_dp import InfeasibleBudget
from pipeline.training.corrections import Corrections
from profilers.latency_table import LatencyTable
from targets.errors import ArtifactError

SLOWEST = 1.1
POINTS = 5


def find_frontier(run: Run) -> list[dict[str, Any]]:
    """Plans between hardly faster and the request → frontier.json; see `predicted_plans`."""
    path, certificate = run.folder.file("frontier.json"), run.folder.file("certificate.json")
    speedups = np.geomspace(min(SLOWEST, run.goal**0.5), run.goal, POINTS)[:-1].tolist()

    def work() -> None:
        found = predicted_plans(run, speedups)
        slower = [row for row in found if 1 < row["speedup"] < read_json(certificate)["measured_speedup"]]
        write_json(path, {"schema": 1, "rows": slower})

    key = digest("frontier", file_digest(certificate), speedups)
    run.folder.stage("frontier", key, [path.name], work)
    rows: list[dict[str, Any]] = read_json(path)["rows"]
    return rows


def predicted_plans(run: Run, speedups: Sequence[float]) -> list[dict[str, Any]]:
    """Plans at other speedups than the run's: what is predicted of each, its loss and its accuracy.

    They come from the corrected latency table and the sensitivities that the search learned, are corrected as the
    run's own plan is, and are not measured. Speedups that the table knows no plan for are left out.
    """
    _, record = load_plan(run.folder.file("plan.json"), run.units)
    table = LatencyTable.load(run.folder.file("latency_table_corrected.json"))
    database = Database(run.folder.file("database"))
    allocator = SEARCH if run.config.allocator == BEST else run.config.allocator
    searcher = Searcher(run, database, allocator, coefficients_of(record))
    corrections = Corrections(run)
    rows = []
    for speedup in speedups:
        try:
            proposal = searcher.allocate(table, table.dense_s / speedup, REFITS)
            corrected = corrections.record(proposal.choice)
        except (InfeasibleBudget, ArtifactError, DataError):  # none, or one that gives no finite outputs
            continue
        predicted = table.speedup(proposal.choice)
        rows.append({"speedup": predicted, "loss": proposal.loss, "accuracy": corrected["accuracy"]})
    return rows

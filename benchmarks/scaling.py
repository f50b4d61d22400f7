"""What a second worker process gains, and what larger jobs would take: database units and candidate plans of ResNet-20.

    SPDY_DATA=... python -m benchmarks.scaling [--workers 1,2] [--plans 64] [--runs runs/scaling]

Every count of loky processes builds the database anew and evaluates the same plans anew, each process on one thread
(OMP_NUM_THREADS=1). Efficiency is the time of one worker over that of n, a worker. The estimates multiply measured
seconds: a unit solved exactly takes rows · d³ steps; a blocked one d³ to factorise, then at every level rows · d² for
the sweep and the cubes of the rows' kept weights for least squares, where those are affordable; each at the speed that
a unit of BERT's shape showed here. A fleet takes the stages of that run in results/resnet20.json which
took nothing over: those of the network once, those that measure on every target, the others wherever processors are.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.runs import RESULTS, host_facts, open_run, profile_timed, resnet20, write_result
from pipeline.backends.workers import Workers
from pipeline.compression.criteria import CRITERIA
from pipeline.compression.database import Database
from pipeline.compression.solvers import AFFORDABLE, blocked_obs, exact_levels, least_squares
from pipeline.context import Run
from pipeline.planning.evaluation import CandidateLosses
from pipeline.planning.searching import candidates_of
from pipeline.run_folder import Log
from pipeline.stages import calibrate_stage, database_stage
from targets.levels import sparsity_grid

EXACT_SHAPE, BLOCKED_SHAPE, NARROW_SHAPE = (256, 768), (1024, 1024), (256, 1024)
"""[rows, d] of the units whose time says what a step takes; the last two differ in their sweep alone."""
BERT_LARGE = 24 * [(1024, 1024)] * 4 + 24 * [(4096, 1024), (1024, 4096)]
"""[rows, d] of every linear layer of the encoder."""
SPARSITIES = [level.amount for level in sparsity_grid()[1:]]
MEASURED_AT = 0.8
"""Sparsity of the level whose sweep and least squares are timed."""
PLANS = 12
"""In the latency table, which only says how many samples candidates are judged by."""
TARGETS = 100
ONCE = ("dense", "calibrate", "database")
"""Stages that depend on the network and its data alone."""
MEASURING = ("probe", "profile", "certify")
"""Stages that take a target for themselves."""
SEARCHING = ("search", "prune", "export", "report")
"""Stages for any processors, of which search also measures a few plans on the target."""


@dataclass(frozen=True)
class StepSeconds:
    """Seconds of one step of every kind, on one thread."""

    exact: float
    factorising: float
    sweeping: float
    solving: float

    def of(self, rows: int, size: int) -> float:
        """A whole unit's."""
        if rows * size**3 <= AFFORDABLE:
            return self.exact * rows * size**3
        cubes = [rows * ((1 - sparsity) * size) ** 3 for sparsity in SPARSITIES]
        solved = sum(steps for steps in cubes if steps <= AFFORDABLE)
        return self.factorising * size**3 + self.sweeping * len(cubes) * rows * size**2 + self.solving * solved


@dataclass(frozen=True)
class Row:
    """Wall time of both kinds of work with so many workers."""

    workers: int
    database_s: float
    plans: int
    evaluation_s: float


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2")
    parser.add_argument("--plans", type=int, default=64)
    parser.add_argument("--levels", type=int, default=42)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--runs", type=Path, default=Path("runs/scaling"))
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    rows = []
    for count in map(int, arguments.workers.split(",")):
        folder = arguments.runs / f"{count}-{time.time_ns()}"
        run = open_run(resnet20(3, plans=PLANS, levels=arguments.levels, calibration_samples=arguments.samples), folder)
        rows.append(measure(run, count, arguments.plans))
        print(rows[-1], flush=True)
    result = {
        "command": "OMP_NUM_THREADS=1 python -m benchmarks.scaling",
        "host": host_facts(run),
        "rows": [vars(row) | efficiency(rows[0], row) for row in rows],
        "estimates": estimates([row.workers for row in rows]),
    }
    write_result("scaling", result)


def measure(run: Run, count: int, plans: int) -> Row:
    """A database and the losses of random plans, from nothing."""
    run = replace(run, workers=Workers("loky", count=count))
    profile_timed(run)
    calibrate_stage(run)
    list(run.workers.compute(abs, [(str(i), (i,)) for i in range(4 * count)]))  # processes start once
    start = time.perf_counter()
    database_stage(run)
    database_s = time.perf_counter() - start
    rng = np.random.default_rng(0)
    chosen = [tuple(int(u.prunable) * int(rng.integers(len(run.levels))) for u in run.units) for _ in range(plans)]
    log = Log(run.folder.file("scaling.jsonl"), "scaling")
    candidates = candidates_of(run, Database(run.folder.file("database")))
    losses = CandidateLosses(candidates, log, run.workers, run.folder.path)
    losses(chosen[:1], float("inf"))  # every worker loads the network once
    start = time.perf_counter()
    losses(chosen[1:], float("inf"))
    return Row(count, database_s, plans - 1, time.perf_counter() - start)


def efficiency(first: Row, row: Row) -> dict[str, float]:
    """Time of the first row over this one's, a worker."""
    share = first.workers / row.workers
    return {
        "database_efficiency": share * first.database_s / row.database_s,
        "evaluation_efficiency": share * first.evaluation_s / row.evaluation_s,
    }


def estimates(counts: list[int]) -> dict[str, Any]:
    """Hours of BERT-large's database on one thread, and how few workers could share it at most."""
    steps = step_seconds()
    seconds = [steps.of(rows, size) for rows, size in BERT_LARGE]
    return {
        "seconds_a_step": asdict(steps),
        "bert_large_database_hours": sum(seconds) / 3600,
        "bert_large_largest_unit_s": max(seconds),
        "bert_large_workers_at_most": sum(seconds) / max(seconds),
        "fleet": fleet(whole_run()),
        "measured_with_workers": counts,
    }


def whole_run() -> dict[str, float]:
    """Seconds of every stage of the run in results/resnet20.json that measured every plan itself."""
    rows = json.loads((RESULTS / "resnet20.json").read_text())["rows"]
    longest: dict[str, float] = max((row["stage_seconds"] for row in rows), key=lambda seconds: seconds["profile"])
    return longest


def fleet(stage_seconds: dict[str, float]) -> dict[str, float]:
    """Hours for many unlike targets and one network: by one host that has all of them in turn, and by one a target."""
    once, measuring, searching = (
        sum(stage_seconds.get(stage, 0.0) for stage in stages) for stages in (ONCE, MEASURING, SEARCHING)
    )
    return {
        "targets": TARGETS,
        "once_s": once,
        "measuring_s_a_target": measuring,
        "searching_s_a_target": searching,
        "hours_in_turn": (once + TARGETS * (measuring + searching)) / 3600,
        "hours_every_target_at_once": (once + measuring + searching) / 3600,
        "hours_with_a_database_a_target": TARGETS * (once + measuring + searching) / 3600,
    }


def step_seconds() -> StepSeconds:
    """By units with random weights and inputs."""
    rng = np.random.default_rng(0)

    def timed(shape: tuple[int, int], work: Callable[[Any, Any], object]) -> float:
        rows, size = shape
        inputs = rng.normal(size=(size, 4 * size))
        hessian, weight = 2 * inputs @ inputs.T, rng.normal(size=(rows, size))
        start = time.perf_counter()
        work(hessian, weight)
        return time.perf_counter() - start

    (rows, size), (narrow, _) = BLOCKED_SHAPE, NARROW_SHAPE
    exact_s = timed(EXACT_SHAPE, lambda h, w: list(exact_levels(h, w, SPARSITIES, CRITERIA["obs"])))
    wide_s, narrow_s = (
        timed(shape, lambda h, w: blocked_obs(h, w, MEASURED_AT)) for shape in (BLOCKED_SHAPE, NARROW_SHAPE)
    )
    solved_s = timed(BLOCKED_SHAPE, lambda h, w: least_squares(h, w, rng.random(w.shape) > MEASURED_AT))
    sweeping = (wide_s - narrow_s) / ((rows - narrow) * size**2)
    return StepSeconds(
        exact_s / (EXACT_SHAPE[0] * EXACT_SHAPE[1] ** 3),
        (narrow_s - sweeping * narrow * size**2) / size**3,
        sweeping,
        solved_s / (rows * ((1 - MEASURED_AT) * size) ** 3),
    )


if __name__ == "__main__":
    main()

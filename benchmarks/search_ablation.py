"""Allocators at equal wall time on one database and latency table: held-out loss and test accuracy over seeds.

    SPDY_DATA=... python -m benchmarks.search_ablation [--speedups 2,3] [--seconds 30] [--seeds 5]

ResNet-20 on CIFAR-10, DeepSparse at batch 64. Every search gets the same seconds on the same calibration samples; the
plans are judged by their loss on other training samples and by test accuracy, batch norm re-estimated and nothing else
corrected. Budgets are those of the latency table, so that no plan is measured and the searches alone differ.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.runs import open_run, profile_timed, resnet20, write_result
from calibration.batch_norm import reestimate_batch_norm
from pipeline.compression.database import Database
from pipeline.compression.stitch import Stitcher
from pipeline.context import Run
from pipeline.planning.evaluation import CandidateLosses, outputs_of
from pipeline.planning.searching import STARTS_TOGETHER, candidates_of, magnitudes_of, measured_errors
from pipeline.run_folder import Log
from pipeline.search.allocators import ALLOCATORS, Allocation, Problem, spdy, surrogate
from pipeline.search.evolution import Ladders, evolve
from pipeline.search.spdy import Knobs
from pipeline.stages import calibrate_stage, database_stage
from pipeline.training.recovery import accuracy_of
from profilers.latency_table import LatencyTable
from targets.errors import SpeedupError

SEARCHES = ("spdy", "spdy-evolution", "evolution", "surrogate")
PLAIN = ("uniform", "global-magnitude", "dp")
HELD_OUT = 1024
MUCH = 10**9


@dataclass(frozen=True)
class Row:
    """One allocator's plan with one seed."""

    speedup: float
    allocator: str
    seed: int
    seconds: float
    evaluations: int
    calibration_loss: float | None
    held_out_loss: float
    test_accuracy: float
    effort: dict[str, float]


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="2,3")
    parser.add_argument("--seconds", type=float, default=30.0, help="of every search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--levels", type=int, default=42)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--plans", type=int, default=60)
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    arguments = parser.parse_args()
    result = {"command": "python -m benchmarks.search_ablation", "seconds": arguments.seconds}
    rows: list[Row] = []
    for speedup in map(float, arguments.speedups.split(",")):
        settings = {"levels": arguments.levels, "calibration_samples": arguments.samples, "plans": arguments.plans}
        run = open_run(resnet20(speedup, **settings), arguments.runs / f"resnet20-{speedup:g}x")
        try:
            table, facts = profile_timed(run)
        except SpeedupError as error:
            print(f"{speedup:g}x: {error}")
            continue
        calibrate_stage(run)
        database_stage(run)
        for allocator in (*PLAIN, *SEARCHES):
            for seed in range(arguments.seeds if allocator in SEARCHES else 1):
                rows.append(measure(run, table, allocator, seed, arguments.seconds))
                print(rows[-1], flush=True)
        found = {"host": facts["host"], "summary": summary(rows), "rows": [asdict(row) for row in rows]}
        write_result("search_ablation", result | found)


def measure(run: Run, table: LatencyTable, allocator: str, seed: int, seconds: float) -> Row:
    """One search with a clock, judged by what it has not seen."""
    database = Database(run.folder.file("database"))
    log = run.folder.file(f"ablation-{allocator}-{seed}.jsonl")
    log.unlink(missing_ok=True)
    losses = CandidateLosses(candidates_of(run, database), Log(log, "ablation"))
    problem = Problem(
        tuple(unit.name for unit in run.units),
        run.levels,
        measured_errors(run, database),
        table.costs(),
        np.array([unit.prunable for unit in run.units]),
        table.dense_s / run.config.speedup - table.fixed_s,
        magnitudes=magnitudes_of(run),
        evaluate=losses,
        rng=np.random.default_rng(seed),
    )
    start = time.perf_counter()
    allocation = allocate(problem, allocator, seconds)
    took = time.perf_counter() - start
    held_out_loss, accuracy = judge(run, database, tuple(allocation.choice.tolist()))
    return Row(
        run.config.speedup,
        allocator,
        seed,
        took,
        len(allocation.trace),
        allocation.loss,
        held_out_loss,
        accuracy,
        losses.costs.to_json(),
    )


def allocate(problem: Problem, allocator: str, seconds: float) -> Allocation:
    """What an allocator finds in so many seconds; SPDY before evolution gets half of them."""
    if allocator in PLAIN:
        return ALLOCATORS[allocator](problem)
    if allocator == "spdy":
        return spdy(replace(problem, knobs=Knobs(should_stop=within(seconds), batch=STARTS_TOGETHER)))
    if allocator == "surrogate":
        return surrogate(replace(problem, knobs=Knobs(should_stop=within(seconds), patience=MUCH)))
    assert problem.evaluate is not None
    assert problem.rng is not None
    start, trace = ALLOCATORS["dp"](problem).choice, ()
    left = seconds
    if allocator == "spdy-evolution":
        left = seconds / 2
        first = spdy(replace(problem, knobs=Knobs(should_stop=within(left), batch=STARTS_TOGETHER)))
        start, trace = first.choice, first.trace
    ladders = Ladders(problem.rows(problem.errors), problem.rows(problem.costs), problem.budget_s)
    knobs = Knobs(should_stop=within(left), patience=MUCH)
    found = evolve(start.tolist(), ladders, problem.evaluate, problem.rng, knobs)
    return Allocation(found.choice, found.loss, trace=(*trace, *found.trace))


def within(seconds: float) -> Callable[[], bool]:
    """Says when they are over."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def judge(run: Run, database: Database, choice: tuple[int, ...]) -> tuple[float, float]:
    """Loss on training samples that calibrate nothing, and accuracy on the test data."""
    network = copy.deepcopy(run.dense)
    Stitcher(network, database).apply(run.plan_of(choice))
    batch = run.adapter.recipe.inference_batch
    reestimate_batch_norm(network, torch.split(torch.from_numpy(run.calibration_inputs), batch))
    inputs = torch.from_numpy(run.judging_samples(HELD_OUT)[:])
    outputs, expected = outputs_of(network, inputs, batch), outputs_of(run.dense, inputs, batch)
    return float(run.adapter.calibration_loss(outputs, expected).mean()), accuracy_of(run, network)


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """Medians over seeds, and their range."""
    found = []
    for speedup, allocator in dict.fromkeys((row.speedup, row.allocator) for row in rows):
        own = [row for row in rows if (row.speedup, row.allocator) == (speedup, allocator)]
        losses, accuracies = ([getattr(row, name) for row in own] for name in ("held_out_loss", "test_accuracy"))
        found.append(
            {
                "speedup": speedup,
                "allocator": allocator,
                "seeds": len(own),
                "held_out_loss": {"median": statistics.median(losses), "least": min(losses), "most": max(losses)},
                "test_accuracy": {"median": statistics.median(accuracies), "least": min(accuracies)},
                "evaluations": statistics.median(row.evaluations for row in own),
            }
        )
    return found


if __name__ == "__main__":
    main()

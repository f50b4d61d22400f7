"""ResNet-20 on CIFAR-10, DeepSparse at batch 64: accuracy against certified speedup, SPDY and plain allocators.

    SPDY_DATA=... python -m benchmarks.resnet20 [--speedups 2,2.5,3,4] [--epochs 6] [--runs runs/bench]

For every requested speedup one run of the pipeline: a certificate for SPDY's plan, and uniform and global magnitude
brought to the same measured latency by the same closed loop, all with the same database and correction. With --epochs,
once more for 3x with gradual pruning, by every allocator. The result is written after every run; finished runs are not
repeated, and a new one takes over the database and the measurements of the last.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.runs import RESULTS, host_facts, open_run, resnet20, run_pipeline, write_result

CERTIFIED_FIELDS = (
    "status",
    "requested_speedup",
    "predicted_speedup",
    "measured_speedup",
    "ci_low",
    "ci_high",
    "noise_floor",
    "speedup_all_rounds",
    "disturbed_fraction",
    "baseline",
    "compressed",
    "best_dense",
    "speedup_over_best_dense",
    "accuracy",
)


def main() -> None:
    """Run, collect, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default="2,2.5,3,4")
    parser.add_argument("--epochs", type=int, default=0)
    parser.add_argument("--epochs-at", type=float, default=3.0)
    parser.add_argument("--allocators", default="spdy,uniform,global-magnitude", help="with --epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    points = [(float(text), 0, "spdy") for text in arguments.speedups.split(",") if text]
    if arguments.epochs:
        points += [(arguments.epochs_at, arguments.epochs, name) for name in arguments.allocators.split(",")]
    for speedup, epochs, allocator in points:
        config = resnet20(speedup, epochs=epochs, allocator=allocator, compare=not epochs)
        folder = arguments.runs / f"resnet20-{speedup:g}x-{epochs}-{allocator}"
        if not folder.exists():
            take_over(arguments.runs, folder)
        outcome = run_pipeline(config, folder)
        row = collect(folder, outcome, epochs) | {"allocator": allocator}
        print(json.dumps({key: row.get(key) for key in ("requested_speedup", "measured_speedup", "status", "plans")}))
        keep(row, host_facts(open_run(config, folder)))


def take_over(runs: Path, folder: Path) -> None:
    """Start a run folder with what does not depend on the speedup, from the last run if there is one."""
    folder.mkdir(parents=True)
    earlier = sorted(runs.glob("resnet20-*/measurements.jsonl"), key=lambda path: path.stat().st_mtime)
    if earlier:
        shutil.copy2(earlier[-1], folder)
        shutil.copytree(earlier[-1].parent / "database", folder / "database")


def collect(folder: Path, outcome: dict[str, Any], epochs: int) -> dict[str, Any]:
    """One line of the result."""
    if "error" in outcome:
        return {"epochs": epochs, "folder": folder.name, **outcome}
    certificate = json.loads((folder / "certificate.json").read_text())
    row = {field: certificate[field] for field in CERTIFIED_FIELDS} | {"epochs": epochs, "folder": folder.name}
    row["measured_over_requested"] = row["measured_speedup"] / row["requested_speedup"]
    row["stage_seconds"] = json.loads((folder / "run.json").read_text())["stage_seconds"]
    comparison = folder / "comparison.json"
    if comparison.exists():
        row["plans"] = json.loads(comparison.read_text())["rows"]
    return row


def keep(row: dict[str, Any], host: dict[str, Any]) -> None:
    """Put a line into the result, in the place of one for the same request."""
    path = RESULTS / "resnet20.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [other for other in rows if other["folder"] != row["folder"]] + [row]
    write_result("resnet20", {"command": "python -m benchmarks.resnet20 --epochs 6", "host": host, "rows": rows})


if __name__ == "__main__":
    main()

"""Points of accuracy against certified speedup: one run of the pipeline each, kept in a result file after every one."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.runs import RESULTS, host_facts, open_run, run_pipeline, write_result
from pipeline.config import RunConfig

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
SMALL: dict[str, Any] = {"plans": 12, "levels": 8, "calibration_samples": 16, "evaluations": 4, "correction_passes": 1}
"""Settings that show whether a benchmark runs at all, in minutes; what it then says is worth nothing."""


def parser_of(description: str | None, speedups: str) -> argparse.ArgumentParser:
    """The options that benchmarks of points share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedups", default=speedups)
    parser.add_argument("--epochs", type=int, default=0, help="once more with gradual pruning, by every allocator")
    parser.add_argument("--allocators", default="spdy,uniform,global-magnitude", help="with --epochs")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    return parser


def point(name: str, command: str, config: RunConfig, runs: Path, **facts: Any) -> dict[str, Any]:
    """Run one point, or take up what is there of it, and keep its line in the result ``name``.

    Args:
        facts: further fields of the line, which with the request tell it from others; also of the folder's name.
    """
    details = "-".join(str(value) for value in facts.values())
    folder = runs / f"{name}-{config.speedup:g}x-{details}"
    if not folder.exists():
        take_over(runs, folder, f"{name}-*x-*")
    outcome = run_pipeline(config, folder)
    row = collect(folder, outcome) | facts | {"host": host_facts(open_run(config, folder))}
    shown = ("requested_speedup", *facts, "measured_speedup", "status", "error")
    print(json.dumps({key: row.get(key) for key in shown}))
    keep(name, command, row)
    return row


def take_over(runs: Path, folder: Path, pattern: str) -> None:
    """Start a run folder with what does not depend on the request, from the last run if there is one."""
    folder.mkdir(parents=True)
    earlier = sorted(runs.glob(f"{pattern}/measurements.jsonl"), key=lambda path: path.stat().st_mtime)
    if earlier:
        shutil.copy2(earlier[-1], folder)
        if (database := earlier[-1].parent / "database").exists():
            shutil.copytree(database, folder / "database")


def collect(folder: Path, outcome: dict[str, Any]) -> dict[str, Any]:
    """One line of the result."""
    record = json.loads((folder / "run.json").read_text()) if (folder / "run.json").exists() else {}
    costs = ("stage_seconds", "stage_peak_bytes")
    kept = {"folder": folder.name} | {name: record[name] for name in costs if name in record}
    if "error" in outcome:
        return kept | {"requested_speedup": record.get("config", {}).get("speedup")} | outcome
    certificate = json.loads((folder / "certificate.json").read_text())
    row = kept | {field: certificate[field] for field in CERTIFIED_FIELDS}
    row["measured_over_requested"] = row["measured_speedup"] / row["requested_speedup"]
    row["fit_error"] = json.loads((folder / "latency_table.json").read_text())["fit_error"]
    comparison = folder / "comparison.json"
    if comparison.exists():
        row["plans"] = json.loads(comparison.read_text())["rows"]
    return row


def keep(name: str, command: str, row: dict[str, Any]) -> None:
    """Put a line into a result, in the place of one of the same folder and host."""
    path = RESULTS / f"{name}.json"
    result = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = [other for other in result["rows"] if any(other[key] != row[key] for key in ("folder", "host"))] + [row]
    write_result(name, result | {"command": command, "rows": rows})


def add_small(parser: argparse.ArgumentParser) -> None:
    """The option that has a benchmark run with `SMALL`."""
    parser.add_argument("--small", action="store_true", help="a trial with hardly any data, kept beside the result")


def numbers(text: str) -> list[float]:
    """What a list with commas holds."""
    return [float(part) for part in text.split(",") if part]

"""What the databases of full-size networks cost: ResNet-50 at 224² and BERT-base at 384 tokens, 42 levels.

    SPDY_DATA=... python -m benchmarks.database_big [--networks bert-base,resnet50] [--samples 1024] [--all]

Layers of one shape cost the same: one of every shape is built with the blocked solver, and its CPU seconds counted as
often as the shape occurs. The pass over the data is timed on a few samples and scaled to --samples. With --all
the whole database is built, for the wall time and the peak of the memory. The result is written after every unit, and
units that are in it are not repeated.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks.random_networks import NETWORKS
from benchmarks.runs import RESULTS, host_facts, open_run, write_result
from calibration.statistics import collect_statistics
from pipeline.compression.database import build_database
from pipeline.config import RunConfig
from pipeline.context import Run
from profilers.machine import peak_rss_bytes

NAME = "database_big"
COMMAND = "python -m benchmarks.database_big"
TIMED_SAMPLES = 16
SOLVER = "blocked"


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="bert-base,resnet50")
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--shapes", type=int, help="time this many shapes only, the most frequent ones first")
    parser.add_argument("--all", action="store_true", help="build everything")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    path = RESULTS / f"{NAME}.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"command": COMMAND, "networks": {}}
    for network in arguments.networks.split(","):
        run = prepared(network, arguments.runs)
        record = result["networks"].setdefault(network, {"units": {}})
        result["host"] = host_facts(run)
        for _ in facts(run, record, arguments.samples, arguments.shapes):
            write_result(NAME, result)
        if arguments.all:
            record["whole"] = whole(run)
            write_result(NAME, result)


def prepared(network: str, runs: Path) -> Run:
    """A run that only lends its network, data and levels."""
    settings = NETWORKS[network].settings(runs / f"full-{network}-files")
    config = RunConfig(target="auto", runtime="deepsparse", speedup=2.0, calibration_samples=TIMED_SAMPLES, **settings)
    run = open_run(config, runs / f"database-{network}")
    (run.runtime,) = run.candidates  # for its levels; nothing runs on it
    return run


def facts(run: Run, record: dict[str, Any], samples: int, shapes: int | None) -> Iterator[None]:
    """Fill a network's record; yields whenever it has something new."""
    units = [unit for unit in run.units if unit.prunable]
    counts = Counter(unit.shape for unit in units)
    if "statistics_cpu_s" not in record:
        with counted() as cpu:
            for _ in collect_statistics(run.dense, [unit.name for unit in units], _batches(run)):
                pass
        record["statistics_cpu_s"] = cpu["s"] * samples / len(run.calibration_samples)
        yield
    for shape, count in counts.most_common(shapes):
        key = "x".join(map(str, shape))
        if key not in record["units"]:
            unit = next(unit for unit in units if unit.shape == shape)
            statistics = list(collect_statistics(run.dense, [unit.name], _batches(run)))
            with tempfile.TemporaryDirectory(dir=run.folder.path) as folder, counted() as cpu:
                database = build_database(
                    [unit], run.dense.state_dict(), statistics, run.levels, Path(folder), solver=SOLVER
                )
                size = database.bytes_on_disk
            record["units"][key] = {"count": count, "cpu_s": cpu["s"], "bytes": size}
        done = record["units"].values()
        record |= {
            "samples": samples,
            "units_timed": sum(row["count"] for row in done),
            "units_in_all": len(units),
            "cpu_s": record["statistics_cpu_s"] + sum(row["count"] * row["cpu_s"] for row in done),
            "bytes": sum(row["count"] * row["bytes"] for row in done),
            "peak_bytes": peak_rss_bytes(),
        }
        record["wall_s_on_two_cores"] = record["cpu_s"] / 2
        yield


def whole(run: Run) -> dict[str, float]:
    """Build the whole database as the pipeline does."""
    units = [unit for unit in run.units if unit.prunable]
    folder = run.folder.file("database")
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier benchmark
    start = time.perf_counter()
    statistics = collect_statistics(run.dense, [unit.name for unit in units], _batches(run))
    with counted() as cpu:
        database = build_database(units, run.dense.state_dict(), statistics, run.levels, folder, solver=SOLVER)
    wall_s = time.perf_counter() - start
    return {"wall_s": wall_s, "cpu_s": cpu["s"], "bytes": database.bytes_on_disk, "peak_bytes": peak_rss_bytes()}


def _batches(run: Run) -> Any:
    return run.calibration_samples.batches(run.adapter.recipe.statistics_batch)


@contextmanager
def counted() -> Iterator[dict[str, float]]:
    """CPU seconds of all threads, which other work on the machine does not change."""
    found: dict[str, float] = {}
    before = time.process_time()
    yield found
    found["s"] = time.process_time() - before


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    main()

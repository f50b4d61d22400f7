"""Runs of the pipeline on the real ResNet-20, for benchmarks: real weights, real images, DeepSparse at batch 64."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.run_folder import RunFolder
from pipeline.setup import open_folder, prepare
from pipeline.stages import probe_stage, profile_stage
from profilers.latency_table import LatencyTable

RESULTS = Path(__file__).parent / "results"


def data_folder() -> Path:
    """Where the real data is."""
    folder = os.environ.get("SPDY_DATA")
    if not folder:
        raise SystemExit("Set SPDY_DATA to the folder with resnet/ and cifar10/.")
    return Path(folder)


def resnet20(speedup: float, **settings: Any) -> RunConfig:
    """ResNet-20 on CIFAR-10 on this host."""
    data = data_folder()
    return RunConfig(
        target="auto",
        runtime="deepsparse",
        batch_size=64,
        speedup=speedup,
        model="resnet:20",
        weights=data / "resnet" / "resnet20_cifar10.safetensors",
        data=data / "cifar10" / "cifar10.zip",
        **settings,
    )


def open_run(config: RunConfig, folder: Path) -> Run:
    """A run whose stages a benchmark calls itself."""
    folder.mkdir(parents=True, exist_ok=True)
    return prepare(config, RunFolder(folder), Reporter())


def profile_timed(run: Run) -> tuple[LatencyTable, dict[str, Any]]:
    """A run's latency table, and what a result says of it."""
    open_folder(run)
    probe_stage(run)
    start = time.perf_counter()
    profile_stage(run)
    seconds = time.perf_counter() - start
    table = LatencyTable.load(run.folder.file("latency_table.json"))
    facts = {
        "host": host_facts(run),
        "profile_s": seconds,
        "plans_fitted": len(table.measurements),
        "dense_s": table.dense_s,
        "fixed_s": table.fixed_s,
        "cross_validated_median": table.fit_error.median,
    }
    return table, facts


def run_pipeline(config: RunConfig, folder: Path) -> dict[str, Any]:
    """What `pipeline run --json` says, run as a user runs it; a finished folder answers at once."""
    flags = ["--out", str(folder), "--json"]
    for name, value in config.model_dump(mode="json", exclude_defaults=True).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        elif value is not None:
            flags += [flag, str(value)]
    command = [str(Path(sys.executable).with_name("pipeline")), "run", *flags]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def write_result(name: str, result: dict[str, Any]) -> None:
    """Keep a result beside the others."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: benchmarks/results/{path.name}")


def host_facts(run: Run) -> dict[str, Any]:
    """What the figures belong to."""
    host = run.host.to_json()
    kept = ("vendor", "model", "uarch", "isa", "physical_cores", "usable_cores", "versions")
    return {name: host[name] for name in kept}

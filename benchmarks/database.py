"""The database of ResNet-20 at 42 levels against AdaPrune as SPDY's authors have it.

    SPDY_DATA=... python -m benchmarks.database [--adaprune-units N]

Measures the time and the size of the default database, the time of AdaPrune on the same units, and, on AdaPrune's own
masks, whether least squares has the lower error for every unit and level. With fewer than all units, AdaPrune runs on
units spread over the network and is compared with our time for those.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from calibration.calibration_set import draw_calibration_set
from calibration.datasets import load_splits
from calibration.statistics import LayerStatistics, capture_inputs, collect_statistics
from pipeline.compression.adaprune import adaprune
from pipeline.compression.database import Database, build_database
from pipeline.compression.hessians import relative_error
from pipeline.compression.solvers import least_squares
from pipeline.models.base import Unit
from pipeline.models.registry import get_adapter
from targets.levels import sparsity_grid

SAMPLES = 1024
BATCH_SIZE = 128
LEVELS = sparsity_grid()
RESULT = Path(__file__).parent / "results" / "database.json"


@dataclass(frozen=True)
class Seconds:
    """Wall-clock time and CPU time of all threads; the latter tells when other work shared the machine."""

    wall_s: float
    cpu_s: float


class Stopwatch:
    """Measures from its making."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> Seconds:
        """Time since then."""
        return Seconds(time.perf_counter() - self._start[0], time.process_time() - self._start[1])


@dataclass(frozen=True)
class Ours:
    """What the default database of all units took."""

    statistics: Seconds
    units: dict[str, Seconds]
    bytes_on_disk: int
    dense_copies_bytes: int

    def seconds(self, names: Sequence[str]) -> Seconds:
        """Time for some of the units, each with its share of the pass over the data."""
        share = len(names) / len(self.units)
        rows = [self.units[name] for name in names]
        return Seconds(
            share * self.statistics.wall_s + sum(row.wall_s for row in rows),
            share * self.statistics.cpu_s + sum(row.cpu_s for row in rows),
        )


@dataclass(frozen=True)
class Comparison:
    """One unit by AdaPrune; relative errors of every level but the dense one."""

    unit: str
    seconds: Seconds
    sparsities: list[float]
    adaprune_errors: list[float]
    least_squares_errors_on_its_masks: list[float]
    our_errors: list[float]

    @property
    def worst_ratio(self) -> float:
        """Largest least-squares error over AdaPrune's on the same mask: at most 1 if the closed form is optimal."""
        pairs = zip(self.least_squares_errors_on_its_masks, self.adaprune_errors, strict=True)
        return max(ours / theirs for ours, theirs in pairs)


def build(model: nn.Module, units: Sequence[Unit], batches: Sequence[Tensor], folder: Path) -> tuple[Ours, Database]:
    watch = Stopwatch()
    statistics = list(collect_statistics(model, [unit.members[0] for unit in units], batches))
    statistics_s = watch.read()
    times: dict[str, Seconds] = {}
    watch = Stopwatch()

    def done(_: int, __: int, unit: str) -> None:
        nonlocal watch
        times[unit] = watch.read()
        watch = Stopwatch()

    database = build_database(units, model.state_dict(), statistics, LEVELS, folder, progress=done)
    dense_bytes = 4 * sum(int(np.prod(unit.shape)) for unit in units) * len(LEVELS)
    return Ours(statistics_s, times, database.bytes_on_disk, dense_bytes), database


def compare(
    model: nn.Module, unit: Unit, batches: Sequence[Tensor], statistics: LayerStatistics, database: Database
) -> Comparison:
    layer = model.get_submodule(unit.members[0])
    sparsities = [level.amount for level in LEVELS[1:]]
    watch = Stopwatch()
    theirs = list(adaprune(layer, capture_inputs(model, unit.members[0], batches), sparsities))
    seconds = watch.read()
    hessian = statistics.hessian
    dense = layer.get_parameter("weight").detach().flatten(1).double().numpy()
    return Comparison(
        unit=unit.name,
        seconds=seconds,
        sparsities=sparsities,
        adaprune_errors=[relative_error(hessian, dense, weight) for weight, _ in theirs],
        least_squares_errors_on_its_masks=[
            relative_error(hessian, dense, least_squares(hessian, dense, mask)) for _, mask in theirs
        ],
        our_errors=[database.get(unit.name, level)[1] for level in LEVELS[1:]],
    )


def summary(ours: Ours, rows: Sequence[Comparison]) -> dict[str, object]:
    everything = ours.seconds(list(ours.units))
    result: dict[str, object] = {
        "our_wall_s": everything.wall_s,
        "our_cpu_s": everything.cpu_s,
        "bytes_on_disk": ours.bytes_on_disk,
        "bytes_over_dense_copies": ours.bytes_on_disk / ours.dense_copies_bytes,
    }
    if rows:
        same = ours.seconds([row.unit for row in rows])
        wall_s, cpu_s = sum(row.seconds.wall_s for row in rows), sum(row.seconds.cpu_s for row in rows)
        error_ratios = [np.divide(row.our_errors, row.adaprune_errors) for row in rows]
        result |= {
            "adaprune_units": len(rows),
            "adaprune_wall_s": wall_s,
            "adaprune_cpu_s": cpu_s,
            "our_time_over_adaprune": same.wall_s / wall_s,
            "our_cpu_time_over_adaprune": same.cpu_s / cpu_s,
            "worst_least_squares_over_adaprune_on_its_masks": max(row.worst_ratio for row in rows),
            "median_our_error_over_adaprune": float(np.median(error_ratios)),
            "worst_our_error_over_adaprune": float(np.max(error_ratios)),
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--adaprune-units", type=int, help="run AdaPrune on so many units only (default: on all)")
    arguments = parser.parse_args()
    data = os.environ.get("SPDY_DATA")
    if not data:
        raise SystemExit("SPDY_DATA is not set: ResNet-20 and CIFAR-10 are needed")
    splits = load_splits(Path(data) / "cifar10" / "cifar10.zip")
    adapter = get_adapter("resnet:20")
    model = adapter.load(Path(data) / "resnet" / "resnet20_cifar10.safetensors", splits)
    sample = torch.from_numpy(splits.train.inputs(np.arange(1)))
    units = [unit for unit in adapter.units(model, sample) if unit.prunable]
    inputs = torch.from_numpy(draw_calibration_set(splits, SAMPLES, seed=0).samples(splits.train)[:])
    batches = torch.split(inputs, BATCH_SIZE)
    folder = Path(tempfile.mkdtemp(prefix="database-"))
    try:
        ours, database = build(model, units, batches, folder)
        print(f"ours: {json.dumps(summary(ours, []))}", flush=True)
        count = len(units) if arguments.adaprune_units is None else min(arguments.adaprune_units, len(units))
        chosen = [units[i] for i in np.linspace(0, len(units) - 1, count).round().astype(int)]
        statistics = dict(collect_statistics(model, [unit.members[0] for unit in chosen], batches))
        rows = []
        for unit in chosen:
            rows.append(compare(model, unit, batches, statistics[unit.members[0]], database))
            print(f"AdaPrune {unit.name}: {rows[-1].seconds.wall_s:.1f} s, {rows[-1].worst_ratio=:.4f}", flush=True)
    finally:
        shutil.rmtree(folder)
    result = {
        "command": " ".join(["python -m benchmarks.database", *([f"--adaprune-units {count}"] if rows else [])]),
        "host": {"machine": platform.machine(), "cpu": _cpu(), "threads": torch.get_num_threads()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "summary": summary(ours, rows),
        "ours": asdict(ours),
        "adaprune": [asdict(row) for row in rows],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["summary"], indent=1))


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    main()

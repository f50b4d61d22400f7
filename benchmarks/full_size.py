"""Full-size networks on DeepSparse: requested, predicted and measured speedups of plans; random weights.

    SPDY_DATA=... python -m benchmarks.full_size [--cases resnet50:1,…] [--speedups 1.5,2,3,4] [--runs runs/bench]

For every case NETWORK:BATCH the latency table is profiled for each request, a dynamic program with a quadratic error
model chooses a plan in the closed loop, and the plan is timed in turns with dense as a certificate is; a request out of
reach is kept with the largest speedup that is within it. What was measured for one request serves the next. The result
is written after every point, and points that are in it are not repeated.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.points import SMALL, add_small, numbers
from benchmarks.random_networks import NETWORKS
from benchmarks.runs import RESULTS, host_facts, open_run, write_result
from pipeline.certification.certificate import verdict
from pipeline.certification.evidence import Protocol, measure_speedup
from pipeline.config import RunConfig
from pipeline.context import Run
from pipeline.planning.closed_loop import Proposal, Round, run_loop
from pipeline.planning.measuring import PlanBench
from pipeline.run_folder import read_json
from pipeline.setup import open_folder
from pipeline.stages import probe_stage, profile_stage, propose
from pipeline.training.masks import magnitude_mask
from profilers.latency_table import Choice, LatencyTable, PlanMeasurement
from profilers.profile import neighbours
from targets.errors import SpeedupError

CASES = "resnet50:1,resnet50:16,resnet50:64,yolov5s:1,yolov5s:16,bert-base:1"
COMMAND = "python -m benchmarks.full_size"
NEIGHBOURS = 4
TRIAL = Protocol(processes=2, most_processes=2, null_processes=2)


def main() -> None:
    """Measure every point that is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--speedups", default="1.5,2,3,4")
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    add_small(parser)
    arguments = parser.parse_args()
    name = "full_size-small" if arguments.small else "full_size"
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    for case in arguments.cases.split(","):
        network, batch = case.split(":")
        for speedup in numbers(arguments.speedups):
            known = {"network": network, "batch_size": int(batch), "requested_speedup": speedup}
            if any(known.items() <= row.items() for row in rows):
                continue
            run = prepared(network, int(batch), speedup, arguments.runs, arguments.small)
            rows.append(known | measured(run, TRIAL if arguments.small else Protocol()))
            print(json.dumps({key: rows[-1].get(key) for key in (*known, "status", "measured_speedup", "error")}))
            write_result(name, {"command": COMMAND, "host": host_facts(run), "rows": rows})


def prepared(network: str, batch_size: int, speedup: float, runs: Path, small: bool) -> Run:
    """A run of a request in a folder of its own, which takes over what was measured for the last one."""
    folder = runs / f"full-{network}-b{batch_size}-{speedup:g}x{'-small' * small}"
    earlier = sorted(runs.glob(f"full-{network}-b{batch_size}-*/measurements.jsonl"), key=lambda p: p.stat().st_mtime)
    if earlier and not folder.exists():
        folder.mkdir(parents=True)
        shutil.copy2(earlier[-1], folder)
    settings = NETWORKS[network].settings(runs / f"full-{network}-files")
    if small:
        settings |= SMALL
    settings.setdefault("calibration_samples", 32)
    config = RunConfig(target="auto", runtime="deepsparse", batch_size=batch_size, speedup=speedup, **settings)
    return open_run(config, folder)


def measured(run: Run, protocol: Protocol) -> dict[str, Any]:
    """What the point came to: a plan with its certificate's figures, or the most that is within reach."""
    open_folder(run)
    probe_stage(run)
    try:
        profile_stage(run)
        table = LatencyTable.load(run.folder.file("latency_table.json"))
        choice, rounds = solved(run, table)
    except SpeedupError as error:
        return {"status": "unreachable", "error": str(error), **reach(run)}
    with tempfile.TemporaryDirectory(dir=run.folder.path) as folder:
        path = Path(folder, "solved.onnx")
        run.patcher.write(run.plan_of(choice), path)
        evidence = measure_speedup(run.bench, run.dense_onnx, path, protocol, seed=run.config.seed)
    speedup, asked = evidence.speedup, run.config.speedup
    predicted = next(turn for turn in rounds if turn.choice == choice).predicted_speedup
    return {
        "status": verdict(asked, speedup, evidence.noise_floor, evidence.is_disturbed),
        "predicted_speedup": predicted,
        "measured_speedup": speedup.value,
        "ci_low": speedup.low,
        "ci_high": speedup.high,
        "noise_floor": evidence.noise_floor,
        "disturbed_fraction": evidence.disturbed_fraction,
        "supported_fraction": evidence.supported_fraction,
        "predicted_over_measured": predicted / speedup.value,
        "measured_over_requested": speedup.value / asked,
        "dense_s": evidence.baseline.value,
        "compressed_s": evidence.compressed.value,
        "rounds": [{"predicted": turn.predicted_speedup, "measured": turn.measured_speedup} for turn in rounds],
        **table_facts(run, table),
    }


def solved(run: Run, table: LatencyTable) -> tuple[Choice, tuple[Round, ...]]:
    """The closed loop with a dynamic program, one draw of sensitivities serving all rounds."""
    bench = PlanBench(run)
    rng = np.random.default_rng(run.config.seed)

    def allocate(table: LatencyTable, budget_s: float, _: int) -> Proposal:
        return Proposal(propose(table, budget_s, np.random.default_rng(run.config.seed)), None)

    def measure(_: LatencyTable, choice: Choice) -> PlanMeasurement:
        return bench.solved(choice, masks(run, choice))

    def nearby(table: LatencyTable, choice: Choice) -> list[PlanMeasurement]:
        return bench.nearby(neighbours(table, choice, NEIGHBOURS, rng))

    def show(turn: Round) -> None:
        print(
            f"  round {turn.number + 1}: {turn.predicted_speedup:.2f}x predicted, {turn.measured_speedup:.2f}x measured"
        )

    found = run_loop(table, run.config.speedup, allocate, measure, nearby, on_round=show)
    return found.choice, found.rounds


def masks(run: Run, choice: Choice) -> dict[str, NDArray[np.bool_]]:
    """Unit → where weights stay when the smallest go."""
    chosen = zip(run.units, choice, strict=True)
    return {
        unit.name: magnitude_mask(run.dense.get_parameter(f"{unit.name}.weight"), run.levels[index].amount).numpy()
        for unit, index in chosen
        if index
    }


def table_facts(run: Run, table: LatencyTable) -> dict[str, Any]:
    """How well the table fitted, and how long it took."""
    seconds = read_json(run.folder.record)["stage_seconds"]
    return {
        "plans_fitted": len(table.measurements),
        "cross_validated_median": table.fit_error.median,
        "profile_s": seconds.get("profile"),
    }


def reach(run: Run) -> dict[str, Any]:
    """The most that was measured, where there is a table."""
    path = run.folder.file("latency_table.json")
    if not path.exists():
        return {"fastest_measured_speedup": None}
    table = LatencyTable.load(path)
    return {"fastest_measured_speedup": max(1 / plan.relative for plan in table.measurements), "dense_s": table.dense_s}


if __name__ == "__main__":
    main()

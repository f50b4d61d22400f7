"""How well the latency table predicts plans that it has not seen: ResNet-20, batch 64, DeepSparse.

    SPDY_DATA=... python -m benchmarks.latency_table [--speedup 3] [--runs runs/bench]

After profiling for a requested speedup, 24 fresh plans near it (half random, half what a search would ask for) and 24
over the whole range are measured, in eight processes each, and compared with the table. Beside it, for openvino and
onnxruntime, the sum of their per-node counters against the whole network's latency.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runs import open_run, profile_timed, resnet20, write_result
from pipeline.context import Run
from pipeline.exporting.graph import module_path
from pipeline.planning.measuring import PlanBench
from pipeline.stages import propose
from profilers.latency_table import Choice, LatencyTable
from profilers.profile import plan_near, random_plan
from targets.registry import get_runtime

PLANS = 24
SEED = 20_000
PROCESSES = 8
"""That measure each fresh plan: two of them would scatter more than the table errs."""


def main() -> None:
    """Profile, measure fresh plans, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speedup", type=float, default=3.0)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    run = open_run(resnet20(arguments.speedup), arguments.runs / f"table-{arguments.speedup:g}x")
    table, facts = profile_timed(run)
    rng = np.random.default_rng(SEED)
    aim_s = table.dense_s / arguments.speedup
    near = [plan_near(table, aim_s, rng, within=0.05) for _ in range(PLANS // 2)]
    near += [propose(table, aim_s * rng.uniform(0.97, 1.03), rng) for _ in range(PLANS // 2)]
    whole = [random_plan(table.units, table.levels, rng) for _ in range(PLANS)]
    result = {
        "command": f"python -m benchmarks.latency_table --speedup {arguments.speedup:g}",
        **facts,
        "near_the_operating_point": compare(run, table, near),
        "whole_range": compare(run, table, whole),
    }
    result["counters"] = [counters(run, name) for name in ("openvino", "onnxruntime")]
    for name in ("near_the_operating_point", "whole_range"):
        errors = result[name]
        assert isinstance(errors, dict)
        print(f"{name}: median {errors['median']:.2%}, mean {errors['mean']:.2%}, worst {errors['worst']:.2%}")
    write_result("latency_table", result)


def compare(run: Run, table: LatencyTable, choices: list[Choice]) -> dict[str, Any]:
    """Relative errors of the table on freshly measured plans."""
    measured = [plan for plan in PlanBench(run, PROCESSES).plans(lambda _: None)(choices, "fresh") if plan is not None]
    predicted = np.array([table.predict(plan.choice) / table.dense_s for plan in measured])
    truth = np.array([plan.relative for plan in measured])
    errors = np.abs(predicted / truth - 1)
    return {
        "plans": len(errors),
        "median": float(np.median(errors)),
        "mean": float(errors.mean()),
        "worst": float(errors.max()),
        "measured_speedups": (1 / truth).round(4).tolist(),
        "predicted_speedups": (1 / predicted).round(4).tolist(),
    }


def counters(run: Run, runtime: str) -> dict[str, Any]:
    """A runtime's own per-node times against the latency of the whole network, and which units they name."""
    bench = replace(run.bench, runtime=get_runtime(runtime), target=replace(run.bench.target, runtime=runtime))
    times = bench.layer_times(run.dense_candidate)
    times_s, latency_s = times.nodes_s, times.latency_s
    assert times_s is not None
    paths = {module_path(node) for node in times_s}
    named = [unit.name for unit in run.units if unit.name in paths]
    ratio = sum(times_s.values()) / latency_s
    print(f"{runtime}: counters add up to {ratio:.2f} of the latency and name {len(named)} of {len(run.units)} units")
    return {"runtime": runtime, "sum_over_latency": ratio, "units_named": len(named), "units": len(run.units)}


if __name__ == "__main__":
    main()

"""What a speedup is over: the dense network in fp32 on the same runtime, or the fastest uncompressed one of all."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.context import BASELINE, Run
from pipeline.run_folder import digest, write_json
from profilers.measure import Bench, Candidate, Effort, Measurement
from profilers.statistics import counted
from targets.errors import RuntimeMissingError
from targets.registry import RuntimeInfo

BEST_DENSE = "best-dense"
VISITS = 3
"""Processes of every runtime."""
EFFORT = Effort(warmups=2, rounds=6, seconds=1.0, compilations=2, patience_s=1.0)


@dataclass(frozen=True, slots=True)
class DenseTime:
    """Latency of the uncompressed network on one runtime in one precision."""

    runtime: str
    precision: str
    latency_s: float


def measure_best_dense(bench: Bench, runtimes: Sequence[RuntimeInfo], dense: Path, *, seed: int) -> list[DenseTime]:
    """The dense network on every installed runtime in every precision it has, fastest first.

    Runtimes cannot share a process, so that they take turns by process: several visits each, median of medians.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    for visit in range(VISITS):
        for info in runtimes:
            here = replace(bench, runtime=info, target=replace(bench.target, runtime=info.name))
            groups = [[Candidate(f"dense {precision}", dense, precision)] for precision in info.precisions]
            try:
                measured = here.measure(Candidate("dense", dense), groups, seed=seed + visit, effort=EFFORT)
            except RuntimeMissingError:
                continue  # another runtime that cannot run this network is no rival
            for precision, (result,) in zip(info.precisions, measured, strict=True):
                if not result.error:
                    seconds.setdefault((info.name, precision), []).append(_counted_s(here, result))
    times = [DenseTime(*key, float(np.median(values))) for key, values in seconds.items()]
    return sorted(times, key=lambda time: time.latency_s)


def _counted_s(bench: Bench, measured: Measurement) -> float:
    """Median seconds over the rounds that count, as in a certificate."""
    (process,), _ = counted([measured], bench.nearest.seconds)
    return float(np.median(np.concatenate([samples_s for samples_s, _ in process])))


def time_dense_everywhere(run: Run) -> list[DenseTime]:
    """The dense network on every installed runtime in every precision it has, fastest first."""
    installed = run.bench.device.runtimes()
    rivals = [info for info in installed if info.name != run.bench.runtime.name] + [run.bench.runtime]
    return measure_best_dense(run.bench, rivals, run.dense_onnx, seed=run.config.seed)


def set_goal(run: Run) -> None:
    """Where the best dense network is the baseline, say what that asks for on this runtime → baseline.json."""
    if run.config.baseline != BEST_DENSE:
        return
    path = run.folder.file(BASELINE)

    def work() -> None:
        times = time_dense_everywhere(run)
        here = next((t for t in times if (t.runtime, t.precision) == (run.bench.runtime.name, "fp32")), None)
        if here is None:
            raise RuntimeMissingError(f"The dense network does not run on {run.bench.runtime.name}: see above.")
        best = times[0]
        write_json(
            path,
            {
                "schema": 1,
                "best_dense": asdict(best),
                "dense_s": here.latency_s,
                "speedup": run.config.speedup * here.latency_s / best.latency_s,
            },
        )
        run.reporter.say(
            f"{run.config.speedup:g}x over the best dense network ({best.runtime} in {best.precision}) is "
            f"{run.goal:.2f}x over dense in fp32 on {here.runtime}: that is what is certified"
        )

    run.folder.stage("baseline", digest("baseline", run.host_key, run.model_key, run.config.speedup), [BASELINE], work)

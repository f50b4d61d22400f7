"""What a speedup is over: the dense network in fp32 on the same runtime, or the fastest uncompressed one of all."""

from dataclasses import asdict

from pipeline.certificate import DenseTime, measure_best_dense
from pipeline.context import BASELINE, Run
from pipeline.run_folder import digest, write_json

BEST_DENSE = "best-dense"


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
        here = next(t for t in times if (t.runtime, t.precision) == (run.bench.runtime.name, "fp32"))
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

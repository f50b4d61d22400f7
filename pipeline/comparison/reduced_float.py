"""What users would do instead of a search: the uncompressed network in bf16 or the like, where a CPU computes it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pipeline.certification.baseline import DenseTime
from pipeline.context import Run
from pipeline.run_folder import read_json
from profilers.measure import Bench, Candidate
from targets.errors import RuntimeMissingError

FULL = "fp32"


def reduced_floats(run: Run) -> list[dict[str, Any]]:
    """A row of a comparison for every shorter float that the certificate timed the dense network in.

    Raises:
        RuntimeMissingError: a network that was timed a moment ago does not run.
    """
    times = [DenseTime(**entry) for entry in read_json(run.folder.file("certificate.json"))["dense_times"]]
    return [uncompressed(run, time, times) for time in times if time.precision != FULL]


def uncompressed(run: Run, time: DenseTime, times: Iterable[DenseTime]) -> dict[str, Any]:
    """The row of the dense network on one runtime in one precision.

    Args:
        times: of the dense network everywhere; the run's own baseline, in fp32, is among them.

    Raises:
        RuntimeMissingError: it does not run there.
    """
    baseline_s = next(t.latency_s for t in times if (t.runtime, t.precision) == (run.bench.runtime.name, FULL))
    bench, model = _bench_of(run, time.runtime), Candidate(f"dense {time.precision}", run.dense_onnx, time.precision)
    score = run.adapter.evaluate(lambda inputs: bench.infer(model, run.adapter.feeds(inputs)), run.splits)
    return {
        "allocator": f"dense in {time.precision} on {time.runtime}",
        "measured_speedup": baseline_s / time.latency_s,
        "accuracy": score.value,
        "sparsity": 0.0,
        "is_ours": False,
        "correction": "none",
    }


def _bench_of(run: Run, runtime: str) -> Bench:
    found = next((info for info in run.bench.device.runtimes() if info.name == runtime), None)
    if found is None:
        raise RuntimeMissingError(f"{runtime} timed the dense network, and is no longer installed")
    return replace(run.bench, runtime=found, target=replace(run.bench.target, runtime=runtime))

"""What users would do instead of a search: nncf turns the whole dense network to int8 after training."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.context import Run
from pipeline.families.int8 import LARGEST_WEIGHT, PRECISION
from pipeline.families.ranges import largest_weight
from pipeline.models.base import Predict
from pipeline.planning.measuring import ratio
from pipeline.run_folder import digest, read_json
from profilers.measure import Bench, Candidate, Effort, save_feeds
from profilers.statistics import counted
from targets.errors import RuntimeMissingError

FILE = "nncf-int8.onnx"
SAMPLES = 256
"""Calibration samples, as many as nncf's own default needs to settle."""
MOST_BYTES = 2**28
PROCESSES = 4
EFFORT = Effort(warmups=2, rounds=6, seconds=1.0, compilations=2, patience_s=1.0)
TIMEOUT_S = 1800.0


def nncf_version() -> str | None:
    """None where it is not installed."""
    try:
        return metadata.version("nncf")
    except metadata.PackageNotFoundError:
        return None


def nncf_int8(run: Run) -> list[dict[str, Any]]:
    """The row of a comparison: how fast and how accurate the network is after ``nncf.quantize``.

    It is measured where int8 gains: on the run's runtime if that has int8, else on another one that is installed. The
    speedup is over the run's own baseline, dense in fp32 on the run's runtime.

    Raises:
        RuntimeMissingError: nncf or a runtime with int8 is not installed, or the network cannot be quantised.
    """
    bench = _bench_with_int8(run)
    model = Candidate("nncf int8", quantised(run))
    dense = run.dense_candidate
    runs = [bench.measure(dense, [[model]], seed=seed, effort=EFFORT)[0][0] for seed in range(PROCESSES)]
    if failed := [measured.error for measured in runs if measured.error]:
        raise RuntimeMissingError(f"{bench.runtime.name} cannot run what nncf made: {failed[0]}")
    speedup = 1 / ratio(counted(runs, bench.nearest.seconds, PROCESSES // 2)[0])
    is_own = bench.runtime.name == run.bench.runtime.name
    score = run.adapter.evaluate(_predict(run, bench, model), run.splits)
    return [
        {
            "allocator": "nncf int8" if is_own else f"nncf int8 on {bench.runtime.name}",
            "measured_speedup": speedup if is_own else speedup * _dense_over(run, bench),
            "accuracy": score.value,
            "sparsity": 0.0,
            "is_ours": False,
            "correction": "biases, by nncf",
        }
    ]


def quantised(run: Run) -> Path:
    """The dense network as ``nncf.quantize`` leaves it, in ONNX; kept in the run folder.

    nncf runs in a process of its own, where it is told not to send usage data.

    Raises:
        RuntimeMissingError: nncf is not installed, or cannot quantise the network.
    """
    version = nncf_version()
    if version is None:
        raise RuntimeMissingError("nncf is not installed: pip install 'spdy-edge[int8]'")
    path = run.folder.file(FILE)
    has_eight_bits = largest_weight(run.host.isa) == LARGEST_WEIGHT

    def work() -> None:
        feeds = path.with_suffix(".npz")
        save_feeds(feeds, _feeds(run))
        try:
            _in_own_process([str(file) for file in (run.dense_onnx, feeds, path)], has_eight_bits)
        finally:
            feeds.unlink()

    key = digest("nncf", version, run.model_key, run.calibration.sha256, run.target.batch_size, has_eight_bits)
    run.folder.stage("nncf", key, [path.name], work)
    return path


def _bench_with_int8(run: Run) -> Bench:
    own = run.bench.runtime
    others = [info for info in run.bench.device.runtimes() if PRECISION in info.families]
    if PRECISION in own.families or not others:
        if PRECISION not in own.families:
            raise RuntimeMissingError("no installed runtime computes in int8: pip install openvino")
        return run.bench
    return replace(run.bench, runtime=others[0], target=replace(run.bench.target, runtime=others[0].name))


def _dense_over(run: Run, bench: Bench) -> float:
    """Latency of the dense network on the run's runtime over that on another one, both in fp32, as certified."""
    times = read_json(run.folder.file("certificate.json"))["dense_times"]
    of = {time["runtime"]: time["latency_s"] for time in times if time["precision"] == "fp32"}
    if bench.runtime.name not in of:
        raise RuntimeMissingError(f"{bench.runtime.name} cannot run the dense network, so that nothing compares")
    return float(of[run.bench.runtime.name] / of[bench.runtime.name])


def _predict(run: Run, bench: Bench, model: Candidate) -> Predict:
    return lambda inputs: bench.infer(model, run.adapter.feeds(inputs))


def _feeds(run: Run) -> Mapping[str, Any]:
    """Calibration inputs of the deployed network, whole batches of them."""
    samples, size = run.calibration_samples, run.target.batch_size
    count = min(SAMPLES, len(samples), max(8, MOST_BYTES // max(1, samples[:1].nbytes)))
    return run.adapter.feeds(samples[np.resize(np.arange(count), -(-count // size) * size)])


def _in_own_process(files: list[str], has_eight_bits: bool) -> None:
    # -P: not a folder "pipeline" where the user stands
    program = [sys.executable, "-P", "-m", "pipeline.comparison.nncf_program"]
    command = [*program, *files, *(["--eight-bits"] if has_eight_bits else [])]
    environment = os.environ | {"NNCF_CI": "1"}  # how nncf is kept from sending usage data
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise RuntimeMissingError(f"nncf took more than {TIMEOUT_S / 60:.0f} minutes") from None
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"exit status {ended.returncode}"]
        raise RuntimeMissingError(f"nncf cannot quantise this network: {said[-1]}")

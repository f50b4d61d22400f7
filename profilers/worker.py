"""The measuring worker: a program of its own that times models under one runtime.

It is packed with the runtimes' files into one zip file and run under the runtime's interpreter (3.8 or newer),
here or on another device, so it imports the standard library, numpy and the runtime, and nothing else.

It reads one job (JSON) from standard input and writes events (JSON, one a line) to standard output:

    job     {"task": "measure", "runtime", "threads", "batch_size", "cpus", "inputs", "seed", "warmups", "rounds",
             "seconds", "patience_s", "nearest_s", "reference": MODEL, "groups": [[MODEL, …], …]}
            {"task": "layers", "runtime", "threads", "batch_size", "cpus", "inputs", "seed", "rounds", "model"}
            {"task": "infer", "runtime", "threads", "batch_size", "cpus", "inputs", "model": MODEL, "outputs"}
    MODEL   {"path", "precision"}
    events  started {group} · measured {group, reference_s, samples_s, distance_s, compile_s, first_s,
            supported_fraction}
            · failed {group, error} · layers {times_s, latency_s} · inferred {supported_fraction}
            · done {peak_rss_bytes, versions}

The models of a group are compiled together and take turns with the reference, in random order in every round, so that
whatever slows the machine down slows all of them. Samples of one round and position stand at the same index. Before a
round the distance of the cores is measured; while it is not as short as it can be, the round waits, up to "patience_s".
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import resource
import sys
import time
import traceback
from contextlib import ExitStack
from typing import Any, Callable

from profilers.core_distance import CoreDistance

UNTIMED_S, TIMED_S = 0.005, 0.010
"""How long a turn runs a model before it takes the time, and while it does."""
NEAR = 1.5
"""Cores are as near as they can be up to this multiple of the shortest distance seen."""

Job = Any
Emit = Callable[[Any], Any]


def main() -> None:
    """Run the job on standard input."""
    emit = claim_stdout()
    job = json.load(sys.stdin)
    if job.get("cpus"):
        os.sched_setaffinity(0, job["cpus"])
    distance = CoreDistance(job["cpus"] or ()) if job["task"] == "measure" else None
    import numpy as np

    runtime = importlib.import_module("runtimes." + job["runtime"])
    if job["task"] == "measure":
        measure_groups(job, runtime, np, distance, emit)
    elif job["task"] == "layers":
        layer_times(job, runtime, np, emit)
    else:
        infer(job, runtime, np, emit)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    emit({"event": "done", "peak_rss_bytes": peak_kib * 1024, "versions": runtime.versions()})


def claim_stdout() -> Emit:
    """Keep standard output for events: what a runtime prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda event: channel.write(json.dumps(event) + "\n")


def measure_groups(job: Job, runtime: Any, np: Any, distance: Any, emit: Emit) -> None:
    """Time every group in turns with the reference; a group that fails is reported and passed over."""
    rng = random.Random(job["seed"])
    placement = Placement(distance, job["nearest_s"])
    with open_model(job, runtime, job["reference"]) as reference:
        for number, group in enumerate(job["groups"]):
            emit({"event": "started", "group": number})
            try:
                found = measure_group(job, runtime, np, rng, placement, reference, group)
                emit({"event": "measured", "group": number, **found})
            except Exception as error:
                detail = traceback.format_exception_only(type(error), error)[-1].strip()
                emit({"event": "failed", "group": number, "error": detail})


def measure_group(
    job: Job, runtime: Any, np: Any, rng: random.Random, placement: Placement, reference: Any, group: Any
) -> Any:
    """Compile the models of one group and time them in turns with the reference."""
    with ExitStack() as stack:
        compile_s, models = [], [reference]
        for model in group:
            start = time.perf_counter()
            models.append(stack.enter_context(open_model(job, runtime, model)))
            compile_s.append(time.perf_counter() - start)
        feeds = [make_inputs(job, np, model) for model in models]
        first_s = [seconds(model, feed) for model, feed in zip(models, feeds)]
        for _ in range(job["warmups"] - 1):
            for model, feed in zip(models, feeds):
                model.run(feed)
        samples, distance_s = time_in_turns(job, rng, placement, models, feeds)
        return {
            "reference_s": samples[0],
            "samples_s": samples[1:],
            "distance_s": distance_s,
            "compile_s": compile_s,
            "first_s": first_s[1:],
            "supported_fraction": [model.supported_fraction() for model in models[1:]],
        }


class Placement:
    """Where the machine has put the cores, and how near they can be.

    Args:
        distance: measures it.
        nearest_s: the shortest distance seen by earlier workers, None before the first.
    """

    def __init__(self, distance: Any, nearest_s: float | None) -> None:
        self._distance, self._nearest_s = distance, nearest_s or float("inf")

    def wait_until_near(self, end: float) -> float | None:
        """Wait while the cores are apart, until ``end`` at most; their distance then."""
        while True:
            distance_s: float | None = self._distance.measure()
            if distance_s is None:
                return None
            self._nearest_s = min(self._nearest_s, distance_s)
            if distance_s <= NEAR * self._nearest_s or time.perf_counter() > end:
                return distance_s
            time.sleep(0.1)


def time_in_turns(
    job: Job, rng: random.Random, placement: Placement, models: Any, feeds: Any
) -> tuple[list[list[float]], list[float | None]]:
    """Turns of every model a round, in random order, until the rounds or the seconds are used up.

    A turn is some untimed runs and then some timed ones. Deployed, a model finds the caches and cores as it left them
    itself; after another model's run its first run can take twice as long, and the next few some percent longer.
    """
    samples: list[list[float]] = [[] for _ in models]
    distance_s: list[float | None] = []
    once_s = [seconds(model, feed) for model, feed in zip(models, feeds)]
    untimed = [runs_within(UNTIMED_S, time_s, most=12) for time_s in once_s]
    timed = runs_within(TIMED_S, min(once_s), most=8)
    order = list(range(len(models)))
    spent_s, patience_end = 0.0, time.perf_counter() + job["patience_s"]
    gc.collect()
    gc.disable()
    for done in range(job["rounds"]):
        if done >= 5 and spent_s > job["seconds"]:
            break
        distance_s += [placement.wait_until_near(patience_end)] * timed
        start = time.perf_counter()
        rng.shuffle(order)
        for index in order:
            for _ in range(untimed[index]):
                models[index].run(feeds[index])
            samples[index] += [seconds(models[index], feeds[index]) for _ in range(timed)]
        spent_s += time.perf_counter() - start
    gc.enable()
    return samples, distance_s


def runs_within(limit_s: float, run_s: float, most: int) -> int:
    """How many runs fill a time, at least one."""
    return max(1, min(most, round(limit_s / run_s)))


def seconds(model: Any, feed: Any) -> float:
    """Time one run."""
    start = time.perf_counter_ns()
    model.run(feed)
    return (time.perf_counter_ns() - start) * 1e-9


def open_model(job: Job, runtime: Any, model: Any) -> Any:
    """Compile one model under the job's settings."""
    return runtime.compile(model["path"], job["threads"], job["batch_size"], precision=model["precision"])


def make_inputs(job: Job, np: Any, model: Any) -> Any:
    """The first batch of the job's inputs, or seeded random ones of the model's shapes."""
    if job.get("inputs"):
        with np.load(job["inputs"]) as arrays:
            return [np.ascontiguousarray(arrays[name][: job["batch_size"]]) for name in sorted(arrays.files)]
    generator = np.random.default_rng(job["seed"])
    return [generator.standard_normal(shape).astype(dtype) for _, shape, dtype in model.input_specs()]


def layer_times(job: Job, runtime: Any, np: Any, emit: Emit) -> None:
    """The runtime's own counters of every node, and the latency of the same model without counters."""
    model = job["model"]
    with open_model(job, runtime, model) as plain:
        feed = make_inputs(job, np, plain)
        plain.run(feed)
        latency_s = sorted(seconds(plain, feed) for _ in range(job["rounds"]))[job["rounds"] // 2]
    size, threads = job["batch_size"], job["threads"]
    with runtime.compile(model["path"], threads, size, precision=model["precision"], profile=True) as counted:
        for _ in range(job["rounds"]):
            counted.run(feed)
        emit({"event": "layers", "times_s": counted.layer_times(), "latency_s": latency_s})


def infer(job: Job, runtime: Any, np: Any, emit: Emit) -> None:
    """Run every input through one model in batches, the last one padded, and write the first output."""
    size = job["batch_size"]
    with np.load(job["inputs"]) as arrays:
        inputs = [arrays[name] for name in sorted(arrays.files)]
    count, outputs = len(inputs[0]), []
    with open_model(job, runtime, job["model"]) as model:
        for start in range(0, count, size):
            indices = np.arange(start, start + size) % count
            outputs.append(model.run([np.ascontiguousarray(array[indices]) for array in inputs])[0].copy())
        fraction = model.supported_fraction()
    np.save(job["outputs"], np.concatenate(outputs)[:count])
    emit({"event": "inferred", "supported_fraction": fraction})


if __name__ == "__main__":
    main()

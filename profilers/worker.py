"""The measuring worker: a program of its own that times models under one runtime.

It is packed with the runtimes' files into one zip file and run under the runtime's interpreter (3.8 or newer),
here or on another device, so it imports the standard library, numpy and the runtime, and nothing else.

It reads one job (JSON, one line) from standard input, which must stay open while it works, and writes events (JSON,
one a line) to standard output. Every job may have an "environment" for the runtime, and "precedence" over other
processes ("required" or "if-allowed"), as well:

    job     {"task": "measure", "runtime", "threads", "batch_size", "cpus", "inputs", "seed", "compilations", "warmups",
             "rounds", "seconds", "patience_s", "nearest_s", "reference": MODEL, "groups": [[MODEL, …], …]}
            {"task": "layers", "runtime", "threads", "batch_size", "cpus", "inputs", "seed", "rounds", "model"}
            {"task": "infer", "runtime", "threads", "batch_size", "cpus", "inputs", "model": MODEL}
            {"task": "alone", "runtime", "threads", "batch_size", "cpus", "inputs", "seed", "warmups", "seconds",
             "model"}
            {"task": "support", "runtime", "threads", "batch_size", "cpus", "model": MODEL}
    MODEL   {"path", "precision"}
    events  started {group} · alive {group, or None}
            · measured {group, reference_s, samples_s, compilation, distance_s, waited_share, compile_s, first_s,
            supported_fraction, machine}
            · failed {group, error} · layers {times_s, operations_s, latency_s, kernels} · outputs {npy in base64}
            · alone {compile_s, first_s, samples_s, supported_fraction, machine}
            · support {fraction, unsupported} · refused {error} · done {peak_rss_bytes, versions}

The models of a group take turns with the reference, in random order in every round, so that whatever slows the machine
down slows all of them. Every few rounds all of them are compiled anew, unless that takes long: where a compilation has
its memory changes a network's latency by several percent. Samples of one round and position stand at the same index.
Before and after a round the distance of the cores is measured, and the longer one told; while it is not as short as it
can be, the round waits. A round that ends with a longer one, or whose threads waited for a core, is done once more.
Both only until "patience_s" have passed.
"""

from __future__ import annotations

import base64
import gc
import importlib
import io
import json
import os
import random
import sys
import threading
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Callable

from profilers.core_distance import NEAR, CoreDistance
from profilers.machine import difference, peak_rss_bytes, read_state
from profilers.waiting import most_waiting, waited_s

UNTIMED_S, TIMED_S = 0.005, 0.010
"""How long a turn runs a model before it takes the time, and while it does."""

SLOW_COMPILE_S = 1.5
"""A network that takes as long to compile is compiled once: other processes see other memory as well, and cost less."""
BEAT_S = 10.0
"""Seconds of silence after which the next model or round is told of."""
MOST_PRECEDENCE = -20
"""The least nice value."""

Job = Any
Emit = Callable[[Any], Any]


def main() -> None:
    """Run the job on standard input."""
    emit = claim_stdout()
    job = json.loads(sys.stdin.readline())
    if job.get("precedence") and job["task"] in ("measure", "layers", "alone"):
        try:
            take_precedence()
        except PermissionError as error:
            if job["precedence"] == "required":
                emit({"event": "refused", "error": error.strerror})
                return
    os.environ.update(job.get("environment", {}))
    if job.get("cpus"):
        os.sched_setaffinity(0, job["cpus"])
    distance = CoreDistance(job["cpus"] or ()) if job["task"] == "measure" else None
    threading.Thread(target=end_with_input, daemon=True).start()
    import numpy as np

    runtime = importlib.import_module("runtimes." + job["runtime"])
    if job["task"] == "measure":
        measure_groups(job, runtime, np, distance, emit)
    else:
        {"layers": layer_times, "infer": infer, "alone": alone, "support": support}[job["task"]](job, runtime, np, emit)
    emit({"event": "done", "peak_rss_bytes": peak_rss_bytes(), "versions": runtime.versions()})


def take_precedence() -> None:
    """Have this process, and threads that it is going to start, run ahead of all others.

    A nice value counts among the processes of one session where the kernel schedules sessions as groups (sched(7),
    autogroup): this becomes a session of its own, which is as nice.
    """
    os.setpriority(os.PRIO_PROCESS, 0, MOST_PRECEDENCE)
    with suppress(OSError):  # it leads one already
        os.setsid()
    with suppress(OSError):  # sessions are no groups here
        Path("/proc/self/autogroup").write_text(str(MOST_PRECEDENCE))


def end_with_input() -> None:
    """End this process with its standard input: whoever wanted the results is gone, or no longer waits for them."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def claim_stdout() -> Emit:
    """Keep standard output for events: what a runtime prints goes to standard error."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return lambda event: channel.write(json.dumps(event) + "\n")


def measure_groups(job: Job, runtime: Any, np: Any, distance: Any, emit: Emit) -> None:
    """Time every group in turns with the reference; a group that fails is reported and passed over."""
    rng = random.Random(job["seed"])
    cores = Cores(distance, job["nearest_s"])
    open_model(job, runtime, job["reference"]).__exit__(None, None, None)  # fails here if it fails at all
    for number, group in enumerate(job["groups"]):
        emit({"event": "started", "group": number})
        beat = heart(emit, number)
        try:
            emit({"event": "measured", "group": number, **measure_group(job, runtime, np, rng, cores, group, beat)})
        except Exception as error:
            detail = traceback.format_exception_only(type(error), error)[-1].strip()
            emit({"event": "failed", "group": number, "error": detail})


def heart(emit: Emit, group: int | None = None) -> Callable[[], None]:
    """Says that a measurement goes on, so that a slow model is not taken for one that hangs."""
    last_s = time.perf_counter()

    def beat() -> None:
        nonlocal last_s
        if time.perf_counter() - last_s > BEAT_S:
            last_s = time.perf_counter()
            emit({"event": "alive", "group": group})

    return beat


def measure_group(
    job: Job, runtime: Any, np: Any, rng: random.Random, cores: Cores, group: Any, beat: Callable[[], None]
) -> Any:
    """Time the models of one group in turns with the reference, in several compilations."""
    cores.be_patient(job["patience_s"])
    before = read_state(job["cpus"] or (), helpers=cores.helpers)
    parts = [measure_compilation(job, runtime, np, rng, cores, group, beat)]
    first = parts[0]
    if max(first["reference_compile_s"], *first["compile_s"]) < SLOW_COMPILE_S:
        others = range(job["compilations"] - 1)
        parts += [measure_compilation(job, runtime, np, rng, cores, group, beat) for _ in others]
    lists = ("reference_s", "distance_s", "waited_share")
    return {
        **{name: [value for part in parts for value in part[name]] for name in lists},
        "samples_s": [[s for part in parts for s in part["samples_s"][index]] for index in range(len(group))],
        "compilation": [number for number, part in enumerate(parts) for _ in part["reference_s"]],
        **{name: first[name] for name in ("compile_s", "first_s", "supported_fraction")},
        "machine": difference(before, read_state(job["cpus"] or (), helpers=cores.helpers)),
    }


def measure_compilation(
    job: Job, runtime: Any, np: Any, rng: random.Random, cores: Cores, group: Any, beat: Callable[[], None]
) -> Any:
    """Compile reference and group, and time them in turns."""
    with ExitStack() as stack:
        compile_s, models = [], []
        for model in [job["reference"], *group]:
            start = time.perf_counter()
            models.append(stack.enter_context(open_model(job, runtime, model)))
            compile_s.append(time.perf_counter() - start)
            beat()
        feeds = [make_inputs(job, np, model) for model in models]
        first_s, *_ = [run_each(models, feeds, beat) for _ in range(job["warmups"])]
        samples, distance_s, waited_share = time_in_turns(job, rng, cores, models, feeds, beat)
        return {
            "reference_s": samples[0],
            "samples_s": samples[1:],
            "distance_s": distance_s,
            "waited_share": waited_share,
            "reference_compile_s": compile_s[0],
            "compile_s": compile_s[1:],
            "first_s": first_s[1:],
            "supported_fraction": [model.supported_fraction() for model in models[1:]],
        }


class Cores:
    """Where the machine has put the cores, how near they can be, and how long to wait for that.

    Args:
        distance: measures it.
        nearest_s: the shortest distance seen by earlier workers, None before the first.
    """

    def __init__(self, distance: Any, nearest_s: float | None) -> None:
        self._distance, self._nearest_s = distance, nearest_s or float("inf")
        self._patience_end = 0.0
        self._least_share = float("inf")

    @property
    def helpers(self) -> Any:
        """Ids of the processes that measure with this one."""
        return self._distance.helpers

    def be_patient(self, patience_s: float) -> None:
        """Wait for better rounds for so long from now on."""
        self._patience_end = time.perf_counter() + patience_s

    def is_patient(self) -> bool:
        """Whether there is time left to wait or to repeat a round."""
        return time.perf_counter() < self._patience_end

    def were_ours(self, waited_share: float | None) -> bool:
        """Whether a round's threads waited no longer than they do for each other."""
        if waited_share is None:
            return True
        self._least_share = min(self._least_share, waited_share)
        return waited_share <= most_waiting(self._least_share)

    def wait_until_near(self) -> float | None:
        """Wait while the cores are apart and patience lasts; their distance then."""
        while True:
            distance_s = self.distance_s()
            if self.are_near(distance_s) or not self.is_patient():
                return distance_s
            time.sleep(0.1)

    def distance_s(self) -> float | None:
        """Their distance now."""
        distance_s: float | None = self._distance.measure()
        self._nearest_s = min(self._nearest_s, distance_s or float("inf"))
        return distance_s

    def are_near(self, distance_s: float | None) -> bool:
        """Whether a distance is as short as it can be; one that is not known is."""
        return distance_s is None or distance_s <= NEAR * self._nearest_s


def time_in_turns(
    job: Job, rng: random.Random, cores: Cores, models: Any, feeds: Any, beat: Callable[[], None]
) -> tuple[list[list[float]], list[float | None], list[float | None]]:
    """Turns of every model a round, in random order, until the rounds or the seconds are used up.

    A turn is some untimed runs and then some timed ones. Deployed, a model finds the caches and cores as it left them
    itself; after another model's run its first run can take twice as long, and the next few some percent longer.
    """
    samples: list[list[float]] = [[] for _ in models]
    distance_s: list[float | None] = []
    waited_share: list[float | None] = []
    once_s = run_each(models, feeds, beat)
    untimed = [runs_within(UNTIMED_S, time_s, most=12) for time_s in once_s]
    timed = runs_within(TIMED_S, min(once_s), most=8)
    order = list(range(len(models)))
    done, spent_s = 0, 0.0
    gc.collect()
    gc.disable()
    while done < job["rounds"] and (done < 5 or spent_s < job["seconds"]):
        before_s = cores.wait_until_near()
        start, waited_before_s = time.perf_counter(), waited_s()
        rng.shuffle(order)
        for index in order:
            for _ in range(untimed[index]):
                models[index].run(feeds[index])
            samples[index] += [seconds(models[index], feeds[index]) for _ in range(timed)]
            beat()
        round_s = time.perf_counter() - start
        share = share_waited(waited_before_s, round_s)
        waited_share += [share] * timed
        farthest_s = max(before_s or 0.0, cores.distance_s() or 0.0) or None
        distance_s += [farthest_s] * timed
        if (cores.were_ours(share) and cores.are_near(farthest_s)) or not cores.is_patient():
            done, spent_s = done + 1, spent_s + round_s
    gc.enable()
    return samples, distance_s, waited_share


def share_waited(before_s: float | None, round_s: float) -> float | None:
    """How long the threads waited for a core since ``before_s``, over the round; None where nobody counts it."""
    now_s = waited_s()
    return None if now_s is None or before_s is None else (now_s - before_s) / round_s


def runs_within(limit_s: float, run_s: float, most: int) -> int:
    """How many runs fill a time, at least one."""
    return max(1, min(most, round(limit_s / run_s)))


def run_each(models: Any, feeds: Any, beat: Callable[[], None]) -> list[float]:
    """Seconds of one run of every model."""
    found = []
    for model, feed in zip(models, feeds):
        found.append(seconds(model, feed))
        beat()
    return found


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
    return [random_array(generator, shape, dtype) for _, shape, dtype in model.input_specs()]


def random_array(generator: Any, shape: Any, dtype: str) -> Any:
    """Random numbers; integers are 0 and 1, which are good as indices, masks and kinds."""
    if dtype.startswith("int"):
        return generator.integers(0, 2, shape, dtype)
    return generator.standard_normal(shape).astype(dtype)


def layer_times(job: Job, runtime: Any, np: Any, emit: Emit) -> None:
    """The runtime's own counters of every node, and the latency of the same model without counters."""
    model, beat = job["model"], heart(emit)
    with open_model(job, runtime, model) as plain:
        feed = make_inputs(job, np, plain)
        plain.run(feed)
        latency_s = sorted(run_each([plain] * job["rounds"], [feed] * job["rounds"], beat))[job["rounds"] // 2]
    size, threads = job["batch_size"], job["threads"]
    with runtime.compile(model["path"], threads, size, precision=model["precision"], profile=True) as counted:
        run_each([counted] * job["rounds"], [feed] * job["rounds"], beat)
        times_s = counted.layer_times()
        found = {"times_s": times_s, "operations_s": counted.operation_times(), "latency_s": latency_s}
        found["kernels"] = counted.kernels()
        emit({"event": "layers", **found})


def support(job: Job, runtime: Any, np: Any, emit: Emit) -> None:  # noqa: ARG001
    """Which operations of a model the runtime's own kernels compute."""
    fraction, others = runtime.kernel_support(job["model"]["path"], job["threads"], job["batch_size"])
    emit({"event": "support", "fraction": fraction, "unsupported": others})


def infer(job: Job, runtime: Any, np: Any, emit: Emit) -> None:
    """Run every input through one model in batches, the last one padded, and tell the first output of each."""
    size = job["batch_size"]
    with np.load(job["inputs"]) as arrays:
        inputs = [arrays[name] for name in sorted(arrays.files)]
    count = len(inputs[0])
    with open_model(job, runtime, job["model"]) as model:
        for start in range(0, count, size):
            indices = np.arange(start, start + size) % count
            output = model.run([np.ascontiguousarray(array[indices]) for array in inputs])[0]
            packed = io.BytesIO()
            np.save(packed, output[: count - start])
            emit({"event": "outputs", "npy": base64.b64encode(packed.getvalue()).decode()})


def alone(job: Job, runtime: Any, np: Any, emit: Emit) -> None:
    """Time one model that has the process to itself, as it will be deployed: loading, the first run, then many."""
    cpus, beat = job["cpus"] or (), heart(emit)
    start = time.perf_counter()
    with open_model(job, runtime, job["model"]) as model:
        compile_s = time.perf_counter() - start
        feed = make_inputs(job, np, model)
        first_s = seconds(model, feed)
        run_each([model] * job["warmups"], [feed] * job["warmups"], beat)
        before, end = read_state(cpus), time.perf_counter() + job["seconds"]
        samples_s: list[float] = []
        while time.perf_counter() < end or len(samples_s) < 5:
            samples_s += run_each([model], [feed], beat)
        machine = difference(before, read_state(cpus))
        found = {"compile_s": compile_s, "first_s": first_s, "samples_s": samples_s, "machine": machine}
        emit({"event": "alone", "supported_fraction": model.supported_fraction(), **found})


if __name__ == "__main__":
    main()

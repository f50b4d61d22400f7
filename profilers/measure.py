"""Measurements in fresh worker processes; a failed one is data."""

import base64
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profilers.nearest import Nearest
from profilers.precedence import Precedence
from profilers.worker_process import pack_worker, worker_events
from targets.devices.base import Device
from targets.devices.registry import LOCAL
from targets.errors import ConfigError, RuntimeMissingError, UnreachableError
from targets.registry import RuntimeInfo, isa_limit
from targets.target import Target

RECONNECT_S = (1.0, 5.0, 20.0)
"""Waits before a connection that was lost is tried again."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file to be measured, in the precision that its runtime shall use."""

    label: str
    path: Path
    precision: str = "fp32"


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Args:
        warmups: runs of every model before the first sample.
        rounds: turns of every model in one compilation.
        seconds: after five rounds, no new one starts once these have passed.
        compilations: how often the models are compiled anew, once if it takes long; where that has its memory changes
            a latency by percents.
        patience_s: for so long, all in all, a group's rounds wait for the machine to put the cores near each other,
            and are repeated when something else had a core.
        timeout_s: the worker is killed when it says nothing for as long: a compilation, or the turn of one model.
    """

    warmups: int = 3
    rounds: int = 40
    seconds: float = 2.0
    compilations: int = 1
    patience_s: float = 4.0
    timeout_s: float = 300.0


Block = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Seconds of a model and of the reference in the rounds of one compilation, [rounds] each."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one model, timed in turns with a reference.

    Args:
        samples_s: [rounds] seconds of the model.
        reference_s: [rounds] seconds of the reference in the same rounds.
        compilation: [rounds] number of the compilation that ran.
        distance_s: [rounds] round trip of a cache line between the cores then; None for a single core.
        waited_share: [rounds] how long threads waited for a core then, over the round's time; None where not counted.
        machine: what the machine did meanwhile (profilers/machine.py), as far as it tells.
        error: what went wrong; then there are no samples.
    """

    label: str
    samples_s: tuple[float, ...] = ()
    reference_s: tuple[float, ...] = ()
    compilation: tuple[int, ...] = ()
    distance_s: tuple[float | None, ...] = ()
    waited_share: tuple[float | None, ...] = ()
    warmups: int = 0
    compile_s: float | None = None
    first_inference_s: float | None = None
    supported_fraction: float | None = None
    error: str | None = None
    machine: Mapping[str, float] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        """Median latency in seconds."""
        return float(np.median(self.samples_s))

    @property
    def speedup(self) -> float:
        """Median latency of the reference over the model's."""
        return float(np.median(self.reference_s) / np.median(self.samples_s))

    def blocks(self, keep: NDArray[np.bool_]) -> list[Block]:
        """Samples of the model and of the reference in the rounds to keep, a pair a compilation."""
        number = np.asarray(self.compilation)
        model_s, reference_s = np.asarray(self.samples_s), np.asarray(self.reference_s)
        rows = [np.flatnonzero((number == compilation) & keep) for compilation in np.unique(number)]
        return [(model_s[row], reference_s[row]) for row in rows]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Measurement":
        """What `to_json` gave, from a file."""
        fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in data.items()}
        return cls(**fields)


OnGroup = Callable[[list[Measurement]], None]


@dataclass(frozen=True, slots=True)
class AloneMeasurement:
    """Raw samples of one model that had a process to itself, as it will be deployed.

    Args:
        samples_s: seconds of every run after the warm-ups.
        peak_rss_bytes: most memory that the process ever held, interpreter and runtime included.
        machine: what the machine did meanwhile (profilers/machine.py), as far as it tells.
    """

    label: str
    samples_s: tuple[float, ...]
    compile_s: float
    first_inference_s: float
    peak_rss_bytes: int
    supported_fraction: float | None
    machine: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """The runtime's own counters, in seconds; None where it has no honest ones.

    Args:
        nodes_s: by ONNX node.
        operations_s: by the kind of kernel that ran.
        latency_s: of the model without counters.
        kernels: what those that ran call themselves, None where the runtime does not tell.
    """

    nodes_s: Mapping[str, float] | None
    operations_s: Mapping[str, float] | None
    latency_s: float
    kernels: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class Bench:
    """Where measurements happen: one runtime on one target, with the inputs that the models are fed.

    Args:
        inputs: a file that `save_feeds` wrote; None for random inputs.
        nearest: what the workers learn about the cores' placement, and are told.
        precedence: what they learn about other processes, and whether they run ahead of these.
        isa: an instruction set that the runtime is kept to, None for all that the CPU has.
    """

    runtime: RuntimeInfo
    target: Target
    inputs: Path | None = None
    effort: Effort = field(default_factory=Effort)
    nearest: Nearest = field(default_factory=Nearest)
    precedence: Precedence = field(default_factory=Precedence)
    isa: str | None = None

    def measure(
        self,
        reference: Candidate,
        groups: Sequence[Sequence[Candidate]],
        *,
        seed: int = 0,
        effort: Effort | None = None,
        on_group: OnGroup = lambda _: None,
    ) -> list[list[Measurement]]:
        """Time every group of candidates in turns with the reference, in one fresh worker process.

        A worker that crashes or hangs costs the group that it was measuring; a new one goes on with the rest. A
        connection that was lost costs nothing but time, unless it cannot be made again. The first group that turns out
        to be measured beside busy processes is measured again, ahead of them, where target and system allow that.

        Args:
            on_group: hears each group's measurements as they come.

        Raises:
            RuntimeMissingError: the reference itself cannot be measured.
            UnreachableError: the device went away.
        """
        effort = effort or self.effort
        results: list[list[Measurement]] = []
        losses = 0
        while len(results) < len(groups):
            before = len(results)
            try:
                self._measure_rest(reference, groups, results, seed, effort, on_group)
            except UnreachableError:
                losses = losses + 1 if len(results) == before else 1
                if losses > len(RECONNECT_S):
                    raise
                time.sleep(RECONNECT_S[losses - 1])
        return results

    def _measure_rest(
        self,
        reference: Candidate,
        groups: Sequence[Sequence[Candidate]],
        results: list[list[Measurement]],
        seed: int,
        effort: Effort,
        on_group: OnGroup,
    ) -> None:
        """Measure the groups that have no results yet, in one worker, and append those that it comes to."""
        before = len(results)
        rest = groups[before:]

        def keep(group: Sequence[Candidate], event: dict[str, Any]) -> None:
            results.append(_measurements(group, event, effort.warmups))
            on_group(results[-1])

        settings = {name: getattr(effort, name) for name in ("compilations", "warmups", "rounds", "seconds")}
        settings["patience_s"] = effort.patience_s * self.nearest.patience
        models = [reference, *(candidate for group in rest for candidate in group)]
        job = {"task": "measure", "seed": seed + before, "nearest_s": self.nearest.seconds, **settings}

        def fill(files: Mapping[Path, str]) -> dict[str, Any]:
            packed = [[_model(candidate, files) for candidate in group] for group in rest]
            return job | {"reference": _model(reference, files), "groups": packed}

        for event in self._run(models, fill, effort.timeout_s):
            if event["event"] in ("measured", "failed"):
                if self.precedence.saw(event.get("machine", {}), self.target):
                    return
                self.nearest.saw(event.get("distance_s", ()))
                keep(rest[event["group"]], event)
            elif event["event"] == "died":
                if event["group"] is None and len(results) == before:
                    raise RuntimeMissingError(self._reference_failed(reference, event["error"]))
                if len(results) < len(groups):
                    keep(groups[len(results)], event)

    def infer(self, model: Candidate, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Outputs [n, …] of a model for inputs [n, …], in its order, on the target's runtime, batch by batch.

        Raises:
            RuntimeMissingError: the model does not run.
            UnreachableError: the device went away.
        """
        with tempfile.TemporaryDirectory() as folder:
            source, count = Path(folder, "inputs.npz"), len(next(iter(feeds.values())))
            save_feeds(source, feeds)
            here = replace(self, inputs=source)
            events = here._single("infer", model, self.effort.timeout_s + count)
            outputs = [base64.b64decode(event["npy"]) for event in events if event["event"] == "outputs"]
        return np.concatenate([np.load(io.BytesIO(batch), allow_pickle=False) for batch in outputs])

    def kernel_support(self, model: Candidate) -> tuple[float | None, list[str]]:
        """Fraction of the operations that the runtime's fast kernels compute, and the others, with node and reason.

        None and nothing where the runtime does not tell. What slow kernels compute gains nothing from zeros.

        Raises:
            RuntimeMissingError: the model does not compile.
            UnreachableError: the device went away.
        """
        events = self._single("support", model, self.effort.timeout_s)
        (event,) = (event for event in events if event["event"] == "support")
        return event["fraction"], event["unsupported"]

    def layer_times(self, model: Candidate, rounds: int = 20) -> LayerTimes:
        """The runtime's own counters for a model.

        Raises:
            RuntimeMissingError: the model does not run.
            UnreachableError: the device went away.
        """
        events = self._single("layers", model, self.effort.timeout_s, rounds=rounds, seed=0)
        (event,) = (event for event in events if event["event"] == "layers")
        return LayerTimes(event["times_s"], event["operations_s"], event["latency_s"], event["kernels"])

    def alone(self, model: Candidate, *, seconds: float = 1.5, warmups: int = 10) -> AloneMeasurement:
        """A model in a process of its own: compilation, first run, latencies, memory, energy.

        Raises:
            RuntimeMissingError: the model does not run.
            UnreachableError: the device went away.
        """
        events = self._single("alone", model, self.effort.timeout_s + seconds, seconds=seconds, warmups=warmups, seed=0)
        (event,) = (event for event in events if event["event"] == "alone")
        return AloneMeasurement(
            model.label,
            tuple(event["samples_s"]),
            event["compile_s"],
            event["first_s"],
            events[-1]["peak_rss_bytes"],
            event["supported_fraction"],
            event["machine"],
        )

    def _single(self, task: str, model: Candidate, timeout_s: float, **fields: Any) -> list[dict[str, Any]]:
        """Events of a job with one model, which must come to its end; a connection that was lost is made again."""

        def fill(files: Mapping[Path, str]) -> dict[str, Any]:
            return {"task": task, "model": _model(model, files), **fields}

        for wait_s in (*RECONNECT_S, None):
            try:
                events = list(self._run([model], fill, timeout_s))
                break
            except UnreachableError:
                if wait_s is None:
                    raise
                time.sleep(wait_s)
        if events[-1]["event"] == "died":
            raise RuntimeMissingError(self._reference_failed(model, events[-1]["error"]))
        return events

    @property
    def device(self) -> Device:
        """Where workers run."""
        return self.target.device

    def _reference_failed(self, model: Candidate, error: str) -> str:
        return (
            f"{self.runtime.name} cannot run {model.label} ({model.path.name}): {error}\n"
            "Check the runtime with `pipeline runtimes list`, or choose another one with --runtime."
        )

    def _run(
        self, models: Sequence[Candidate], fill: Callable[[Mapping[Path, str]], dict[str, Any]], timeout_s: float
    ) -> Iterator[dict[str, Any]]:
        """Events of one worker process; the last is ``done``, or ``died`` with the group and what it said.

        Args:
            models: whose files the device must have.
            fill: makes the job's own fields, told where the device has each file.
        """
        device = self.device
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "worker.pyz")
            pack_worker(program)
            sent = list(dict.fromkeys([program, *([self.inputs] if self.inputs else []), *(m.path for m in models)]))
            files = dict(zip(sent, device.hold(sent), strict=True))
            job = {
                "runtime": self.runtime.name,
                "threads": self.target.threads,
                "batch_size": self.target.batch_size,
                "cpus": device.pinned_cpus(self.target.threads),
                "inputs": files[self.inputs] if self.inputs else None,
                "environment": isa_limit(self.runtime.name, self.isa) if self.isa else {},
                "precedence": self.precedence.request(self.target),
            } | fill(files)
            assert self.runtime.interpreter is not None, "only runtimes that are installed are measured"
            command = device.command(self.runtime.interpreter, files[program])
            for event in worker_events(command, json.dumps(job), timeout_s, device):
                if event["event"] == "refused":
                    where = "here" if device.name == LOCAL else f"on {device.name}"
                    raise ConfigError(
                        f"What measures may not run ahead of other processes {where}: {event['error']}. Be root, in a "
                        "container with the capability SYS_NICE, or measure without --precedence."
                    )
                yield event


def save_feeds(path: Path, feeds: Mapping[str, NDArray[Any]]) -> None:
    """Write a model's inputs, in its order, where a worker finds them in that order."""
    np.savez(path, **{f"{number:02}": array for number, array in enumerate(feeds.values())})  # type: ignore[arg-type]


def _model(candidate: Candidate, files: Mapping[Path, str]) -> dict[str, str]:
    return {"path": files[candidate.path], "precision": candidate.precision}


def _measurements(group: Sequence[Candidate], event: dict[str, Any], warmups: int) -> list[Measurement]:
    if event["event"] != "measured":
        return [Measurement(candidate.label, error=event["error"]) for candidate in group]
    return [
        Measurement(
            candidate.label,
            tuple(event["samples_s"][index]),
            tuple(event["reference_s"]),
            tuple(event["compilation"]),
            tuple(event["distance_s"]),
            tuple(event["waited_share"]),
            warmups,
            event["compile_s"][index],
            event["first_s"][index],
            event["supported_fraction"][index],
            machine=event["machine"],
        )
        for index, candidate in enumerate(group)
    ]

"""Measurements in fresh worker processes; a failed one is data."""

import json
import queue
import subprocess
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import targets.runtimes
from targets.errors import RuntimeMissingError
from targets.host import pinned_cpus
from targets.registry import RuntimeInfo
from targets.target import Target


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
        rounds: samples of every model, taken in turns.
        seconds: after five rounds, no new one starts once these have passed.
        patience_s: a group's rounds wait this long, all in all, for the machine to put the cores near each other.
        timeout_s: the worker is killed when one group takes longer, compilation included.
    """

    warmups: int = 3
    rounds: int = 40
    seconds: float = 2.0
    patience_s: float = 20.0
    timeout_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Raw samples of one model, timed in turns with a reference.

    Args:
        samples_s: [rounds] seconds of the model.
        reference_s: [rounds] seconds of the reference in the same rounds.
        distance_s: [rounds] round trip of a cache line between the cores then; None for a single core.
        error: what went wrong; then there are no samples.
    """

    label: str
    samples_s: tuple[float, ...] = ()
    reference_s: tuple[float, ...] = ()
    distance_s: tuple[float | None, ...] = ()
    warmups: int = 0
    compile_s: float | None = None
    first_inference_s: float | None = None
    supported_fraction: float | None = None
    error: str | None = None

    @property
    def latency_s(self) -> float:
        """Median latency in seconds."""
        return float(np.median(self.samples_s))

    @property
    def speedup(self) -> float:
        """Median latency of the reference over the model's."""
        return float(np.median(self.reference_s) / np.median(self.samples_s))

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)


@dataclass(slots=True)
class Nearest:
    """The shortest distance of the cores that was ever seen, in seconds; None before the first."""

    seconds: float | None = None

    def saw(self, distance_s: Iterable[float | None]) -> None:
        """Take note of measured distances."""
        known = [s for s in (self.seconds, *distance_s) if s is not None]
        self.seconds = min(known, default=None)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where measurements happen: one runtime on one target, with the inputs that the models are fed.

    Args:
        inputs: an .npz file of network inputs in alphabetical order; None for random ones.
        nearest: what the workers learn about the cores' placement, and are told.
    """

    runtime: RuntimeInfo
    target: Target
    inputs: Path | None = None
    effort: Effort = field(default_factory=Effort)
    nearest: Nearest = field(default_factory=Nearest)

    def measure(
        self,
        reference: Candidate,
        groups: Sequence[Sequence[Candidate]],
        *,
        seed: int = 0,
        effort: Effort | None = None,
        on_group: Callable[[int], None] | None = None,
    ) -> list[list[Measurement]]:
        """Time every group of candidates in turns with the reference, in one fresh worker process.

        A worker that crashes or hangs costs the group that it was measuring; a new one goes on with the rest.

        Raises:
            RuntimeMissingError: the reference itself cannot be measured.
        """
        effort = effort or self.effort
        results: list[list[Measurement]] = []
        while len(results) < len(groups):
            rest = groups[len(results) :]
            job = self._job(
                task="measure",
                seed=seed + len(results),
                warmups=effort.warmups,
                rounds=effort.rounds,
                seconds=effort.seconds,
                patience_s=effort.patience_s,
                nearest_s=self.nearest.seconds,
                reference=_model(reference),
                groups=[[_model(candidate) for candidate in group] for group in rest],
            )
            before = len(results)
            for event in self._run(job, effort.timeout_s):
                if event["event"] in ("measured", "failed"):
                    self.nearest.saw(event.get("distance_s", ()))
                    results.append(_measurements(rest[event["group"]], event, effort.warmups))
                    if on_group:
                        on_group(len(results))
                elif event["event"] == "died":
                    if event["group"] is None and len(results) == before:
                        raise RuntimeMissingError(self._reference_failed(reference, event["error"]))
                    if len(results) < len(groups):
                        results.append(_measurements(groups[len(results)], event, effort.warmups))
        return results

    def infer(self, model: Candidate, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outputs [n, …] of a model for inputs [n, …] on the target's runtime, in batches of its batch size.

        Raises:
            RuntimeMissingError: the model does not run.
        """
        with tempfile.TemporaryDirectory() as folder:
            source, result = Path(folder, "inputs.npz"), Path(folder, "outputs.npy")
            np.savez(source, inputs)
            job = self._job(task="infer", model=_model(model), inputs=str(source), outputs=str(result))
            for event in self._run(job, self.effort.timeout_s + len(inputs)):
                if event["event"] == "died":
                    raise RuntimeMissingError(self._reference_failed(model, event["error"]))
            outputs: NDArray[np.float32] = np.load(result)
        return outputs

    def layer_times(self, model: Candidate, rounds: int = 20) -> tuple[dict[str, float] | None, float]:
        """The runtime's own counters, seconds by ONNX node, and the model's latency in seconds without them.

        Counters are None where the runtime has no honest ones.

        Raises:
            RuntimeMissingError: the model does not run.
        """
        job = self._job(task="layers", model=_model(model), rounds=rounds, seed=0)
        times_s, latency_s = None, 0.0
        for event in self._run(job, self.effort.timeout_s):
            if event["event"] == "died":
                raise RuntimeMissingError(self._reference_failed(model, event["error"]))
            if event["event"] == "layers":
                times_s, latency_s = event["times_s"], event["latency_s"]
        return times_s, latency_s

    def _job(self, **fields: Any) -> dict[str, Any]:
        common = {
            "runtime": self.runtime.name,
            "threads": self.target.threads,
            "batch_size": self.target.batch_size,
            "cpus": pinned_cpus(self.target.threads),
            "inputs": str(self.inputs) if self.inputs else None,
        }
        return common | fields

    def _reference_failed(self, model: Candidate, error: str) -> str:
        return (
            f"{self.runtime.name} cannot run {model.label} ({model.path.name}): {error}\n"
            "Check the runtime with `pipeline runtimes list`, or choose another one with --runtime."
        )

    def _run(self, job: dict[str, Any], timeout_s: float) -> Iterator[dict[str, Any]]:
        """Events of one worker process; the last is ``done``, or ``died`` with the group and what it said."""
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder, "worker.pyz")
            pack_worker(program)
            yield from _events([str(self.runtime.interpreter), "-I", str(program)], json.dumps(job), timeout_s)


def pack_worker(path: Path) -> None:
    """Write the worker and the runtimes' files as one runnable zip file."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(Path(__file__).with_name("worker.py"), "__main__.py")
        archive.writestr("profilers/__init__.py", "")
        archive.write(Path(__file__).with_name("core_distance.py"), "profilers/core_distance.py")
        for source in sorted(Path(targets.runtimes.__file__).parent.glob("*.py")):
            archive.write(source, f"runtimes/{source.name}")


def _model(candidate: Candidate) -> dict[str, str]:
    return {"path": str(candidate.path), "precision": candidate.precision}


def _measurements(group: Sequence[Candidate], event: dict[str, Any], warmups: int) -> list[Measurement]:
    if event["event"] != "measured":
        return [Measurement(candidate.label, error=event["error"]) for candidate in group]
    return [
        Measurement(
            candidate.label,
            tuple(event["samples_s"][index]),
            tuple(event["reference_s"]),
            tuple(event["distance_s"]),
            warmups,
            event["compile_s"][index],
            event["first_s"][index],
            event["supported_fraction"][index],
        )
        for index, candidate in enumerate(group)
    ]


def _events(command: Sequence[str], job: str, timeout_s: float) -> Iterator[dict[str, Any]]:
    """Run the worker; kill it when no event comes within ``timeout_s``."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
            _send(process.stdin, job)
            group, error = None, ""
            while True:
                try:
                    line = lines.get(timeout=timeout_s)
                except queue.Empty:
                    error = f"no answer within {timeout_s:g} s"
                    process.kill()
                    break
                if line is None:
                    break
                event = json.loads(line)
                yield event
                if event["event"] == "done":
                    return
                group = event.get("group", group)
            code = _end(process)
            yield {"event": "died", "group": group, "error": error or f"worker ended ({code}): {_last_words(log)}"}
        finally:
            process.kill()
            process.wait()


def _end(process: "subprocess.Popen[str]") -> int:
    """The exit code of a worker that ends, or is made to."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _pump(stream: Any, lines: "queue.Queue[str | None]") -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _send(stream: Any, job: str) -> None:
    try:
        stream.write(job)
        stream.close()
    except BrokenPipeError:
        pass  # the worker is gone; the end of its output says so


def _last_words(log: Any, characters: int = 600) -> str:
    log.seek(0)
    lines = [line for line in log.read().splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing")[-characters:]

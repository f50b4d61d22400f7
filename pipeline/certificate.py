"""The certificate: what was measured, how sure it is, and everything needed to measure it again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.run_folder import write_json
from profilers.measure import Bench, Candidate, Effort, Measurement
from profilers.statistics import Interval, speedup_interval, undisturbed_rounds
from targets.errors import RuntimeMissingError
from targets.registry import RuntimeInfo

if TYPE_CHECKING:
    from pipeline.models.base import Score  # imports torch, which those who only read certificates do without

SCHEMA = 1
CERTIFIED, MISSED, INCONCLUSIVE = "certified", "missed", "inconclusive"
EXIT_CODES = {CERTIFIED: 0, MISSED: 3, INCONCLUSIVE: 6}


@dataclass(frozen=True, slots=True)
class Protocol:
    """How much is measured for a certificate.

    Many short processes: where a process happens to have its memory changes a network's latency by several percent,
    much more than rounds of one process differ.

    Args:
        processes: fresh worker processes, at least.
        most_processes: and at most, while the interval is wider than ``half_width``.
        half_width: relative half width of the interval at which measuring stops.
        fewest_rounds: undisturbed rounds that a process needs to count.
    """

    processes: int = 8
    most_processes: int = 40
    half_width: float = 0.01
    fewest_rounds: int = 5
    confidence: float = 0.95
    effort: Effort = field(default_factory=lambda: Effort(warmups=3, rounds=10, seconds=2.0))


@dataclass(frozen=True, slots=True)
class ProcessSamples:
    """Samples of one process: dense and compressed in turns with the cores' distance, then dense and dense once more.

    Never three networks at once: a runtime's idle threads wait actively, and cost the others time.
    """

    baseline_s: tuple[float, ...]
    compressed_s: tuple[float, ...]
    distance_s: tuple[float | None, ...]
    null_baseline_s: tuple[float, ...]
    null_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SpeedupEvidence:
    """The measured speedup, and the same measurement of the dense network against itself.

    Args:
        speedup: over the rounds in which the cores were near each other.
        speedup_all_rounds: over every round.
        processes: every sample.
        counted: those of the rounds that count.
        disturbed_fraction: of the rounds, those in which the cores were apart.
        is_disturbed: nearly all of them were, so that all of them count and ``speedup`` may be too low.
    """

    speedup: Interval
    speedup_all_rounds: Interval
    null: Interval
    processes: tuple[ProcessSamples, ...]
    counted: tuple[ProcessSamples, ...]
    disturbed_fraction: float
    is_disturbed: bool
    supported_fraction: float | None

    @property
    def noise_floor(self) -> float:
        """How far from 1 the interval of the dense network against itself reaches."""
        return max(abs(self.null.low - 1), abs(self.null.high - 1))

    @property
    def baseline_s(self) -> float:
        """Median latency of the dense network over the rounds that count."""
        return float(np.median(np.concatenate([p.baseline_s for p in self.counted])))

    @property
    def compressed_s(self) -> float:
        """Median latency of the compressed network over the rounds that count."""
        return float(np.median(np.concatenate([p.compressed_s for p in self.counted])))


def measure_speedup(
    bench: Bench,
    dense: Path,
    compressed: Path,
    protocol: Protocol,
    *,
    seed: int,
    on_process: Callable[[int, int], None] | None = None,
) -> SpeedupEvidence:
    """Time both networks in turns in fresh processes, until the interval is narrow or the processes are used up.

    When to stop depends on the width alone, never on whether the claim would hold.

    Raises:
        RuntimeMissingError: a network does not run.
    """
    processes: list[ProcessSamples] = []
    fraction = None
    while True:
        groups = [[Candidate("compressed", compressed)], [Candidate("dense again", dense)]]
        measured = bench.measure(Candidate("dense", dense), groups, seed=seed + len(processes), effort=protocol.effort)
        samples, fraction = _process_samples([group[0] for group in measured])
        processes.append(samples)
        if on_process:
            on_process(len(processes), protocol.most_processes)
        counted = quiet_processes(processes, protocol.fewest_rounds, bench.nearest.seconds)
        enough = len(counted) >= max(protocol.processes, 2)
        last = len(processes) >= protocol.most_processes
        if enough or last:
            evidence = _evidence(processes, counted, fraction, protocol)
            if last or evidence.speedup.half_width <= protocol.half_width:
                return evidence


def _process_samples(measured: Sequence[Measurement]) -> tuple[ProcessSamples, float | None]:
    compressed, null = measured
    for measurement in measured:
        if measurement.error:
            raise RuntimeMissingError(f"The {measurement.label} network failed while it was timed: {measurement.error}")
    samples = ProcessSamples(
        compressed.reference_s, compressed.samples_s, compressed.distance_s, null.reference_s, null.samples_s
    )
    return samples, compressed.supported_fraction


def quiet_processes(
    processes: Sequence[ProcessSamples], fewest_rounds: int, nearest_s: float | None = None
) -> list[ProcessSamples]:
    """The undisturbed rounds of every process that has enough of them."""
    found = []
    undisturbed = undisturbed_rounds([p.distance_s for p in processes], nearest_s)
    for process, keep in zip(processes, undisturbed, strict=True):
        if keep.sum() >= min(fewest_rounds, len(keep)):
            baseline, compressed = (
                tuple(np.asarray(column)[keep].tolist()) for column in (process.baseline_s, process.compressed_s)
            )
            found.append(replace(process, baseline_s=baseline, compressed_s=compressed))
    return found


def _evidence(
    processes: Sequence[ProcessSamples],
    quiet: Sequence[ProcessSamples],
    supported_fraction: float | None,
    protocol: Protocol,
) -> SpeedupEvidence:
    """Intervals over the quiet rounds, or over all where too few processes had any."""
    is_disturbed = len(quiet) < max(2, protocol.processes // 2)
    counted = processes if is_disturbed else quiet
    return SpeedupEvidence(
        _speedup(counted, protocol.confidence),
        _speedup(processes, protocol.confidence),
        speedup_interval(
            [p.null_baseline_s for p in counted], [p.null_s for p in counted], confidence=protocol.confidence
        ),
        tuple(processes),
        tuple(counted),
        1 - sum(len(p.baseline_s) for p in quiet) / sum(len(p.baseline_s) for p in processes),
        is_disturbed,
        supported_fraction,
    )


def _speedup(processes: Sequence[ProcessSamples], confidence: float) -> Interval:
    return speedup_interval(
        [p.baseline_s for p in processes], [p.compressed_s for p in processes], confidence=confidence
    )


def verdict(requested: float, speedup: Interval, noise_floor: float, is_disturbed: bool = False) -> str:
    """Certified only if the whole interval reaches the request; missed only if none of it does.

    A noise floor as large as the claimed gain says that the machine, not the model, may have made the difference. A
    machine that was disturbed all the time may hide a speedup, but does not feign one.
    """
    if noise_floor >= requested - 1:
        return INCONCLUSIVE
    if speedup.low >= requested:
        return CERTIFIED
    return MISSED if speedup.high < requested and not is_disturbed else INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class DenseTime:
    """Latency of the uncompressed network on one runtime in one precision."""

    runtime: str
    precision: str
    latency_s: float


def measure_best_dense(bench: Bench, runtimes: Sequence[RuntimeInfo], dense: Path, *, seed: int) -> list[DenseTime]:
    """The dense network on every installed runtime in every precision it has, fastest first.

    Runtimes cannot share a process, so that they take turns by process: three visits each, median of medians.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    for visit in range(3):
        for info in runtimes:
            here = replace(bench, runtime=info, target=replace(bench.target, runtime=info.name))
            groups = [[Candidate(f"dense {precision}", dense, precision)] for precision in info.precisions]
            try:
                effort = Effort(warmups=3, rounds=20, seconds=1.5)
                measured = here.measure(Candidate("dense", dense), groups, seed=seed + visit, effort=effort)
            except RuntimeMissingError:
                continue  # another runtime that cannot run this network is no rival
            for precision, (result,) in zip(info.precisions, measured, strict=True):
                if not result.error:
                    seconds.setdefault((info.name, precision), []).append(result.latency_s)
    times = [DenseTime(*key, float(np.median(values))) for key, values in seconds.items()]
    return sorted(times, key=lambda time: time.latency_s)


def accuracy_record(dense: "Score", compressed: "Score", *, seed: int = 0, confidence: float = 0.95) -> dict[str, Any]:
    """Both scores, with a paired bootstrap interval of their difference over the samples."""
    difference = compressed.per_sample - dense.per_sample
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(difference, len(difference)).mean() for _ in range(2000)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return {
        "metric": dense.metric,
        "dense": dense.value,
        "compressed": compressed.value,
        "difference": compressed.value - dense.value,
        "ci_low": float(low),
        "ci_high": float(high),
        "confidence": confidence,
        "n": len(difference),
    }


@dataclass(frozen=True, slots=True)
class Certificate:
    """The statement that ships. Seconds are medians; ratios are of runs taken in turns.

    Args:
        created: when it was measured, in ISO 8601 with the time zone.
    """

    created: str
    status: str
    requested_speedup: float
    predicted_speedup: float
    measured_speedup: float
    ci_low: float
    ci_high: float
    confidence: float
    noise_floor: float
    speedup_all_rounds: Mapping[str, float]
    disturbed_fraction: float
    is_disturbed: bool
    baseline: Mapping[str, Any]
    compressed: Mapping[str, Any]
    best_dense: Mapping[str, Any]
    speedup_over_best_dense: float
    accuracy: Mapping[str, Any]
    host: Mapping[str, Any]
    target: Mapping[str, Any]
    proxy: bool
    licence_note: str
    versions: Mapping[str, str]
    supported_fraction: float | None
    dense_times: Sequence[Mapping[str, Any]]
    file_bytes: Mapping[str, int]
    samples: Mapping[str, Any]
    schema: int = SCHEMA

    def save(self, path: Path) -> None:
        """Write the certificate as JSON, whole or not at all."""
        write_json(path, asdict(self))

"""A speedup as fresh processes measure it: both networks in turns, until its interval is narrow enough."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profilers.disturbances import name_disturbances
from profilers.measure import Bench, Candidate, Effort, Measurement
from profilers.statistics import (
    Interval,
    Process,
    by_process,
    counted,
    latency_interval,
    speedup_interval,
    undisturbed_share,
)
from targets.errors import RuntimeMissingError


@dataclass(frozen=True, slots=True)
class Protocol:
    """How much is measured for a certificate.

    Where a process and a compilation happen to have their memory, and what the machine's other guests do, changes a
    network's latency by several percent, much more than rounds of one compilation differ: processes are many and short.

    Args:
        processes: fresh worker processes, at least.
        most_processes: and at most, while the interval is wider than ``half_width``.
        null_processes: those that also time the dense network against itself.
        half_width: relative half width of the interval at which measuring stops.
        budget_s: no new process starts once these seconds have passed, `FEWEST` being there; None for no limit.
        spread_s: the first ``processes`` start evenly over these seconds. Shared machines change from minute to minute,
            and the ratio with them: an interval speaks for the time that it was measured in.
    """

    processes: int = 12
    most_processes: int = 40
    null_processes: int = 4
    half_width: float = 0.01
    budget_s: float | None = None
    spread_s: float = 0.0
    confidence: float = 0.95
    effort: Effort = field(
        default_factory=lambda: Effort(warmups=2, rounds=6, seconds=1.0, compilations=3, patience_s=1.0)
    )


@dataclass(frozen=True, slots=True)
class ProcessSamples:
    """What one process measured: the compressed network in turns with dense, then perhaps dense in turns with itself.

    Never three networks at once: a runtime's idle threads wait actively, and cost the others time.
    """

    compressed: Measurement
    null: Measurement | None


KeepProcess = Callable[[ProcessSamples], None]
"""Told of every process that measured."""
FEWEST = 3
"""Processes, whatever the time: two differ by chance as much as a speedup, and their interval says nothing."""
MOST_FAILURES = 2
"""Processes that may fail in a certificate: a failure is data, but three are a network or a machine that fails."""


@dataclass(frozen=True, slots=True)
class SpeedupEvidence:
    """The measured speedup, and the same measurement of the dense network against itself.

    Args:
        speedup: over the rounds that count.
        speedup_all_rounds: over every round.
        processes: every sample.
        counted: those of the compressed network and of dense beside it that count.
        span_s: seconds from the first process's start to the last one's end.
        disturbed_fraction: of the rounds, those in which the cores were apart or something else had one.
        is_disturbed: hardly any were not, so that all of them count and ``speedup`` may be too low.
        failures: what processes said that failed.
    """

    speedup: Interval
    speedup_all_rounds: Interval
    null: Interval
    processes: tuple[ProcessSamples, ...]
    counted: tuple[Process, ...]
    disturbed_fraction: float
    is_disturbed: bool
    span_s: float = 0.0
    failures: tuple[str, ...] = ()

    @property
    def noise_floor(self) -> float:
        """How far from 1 the interval of the dense network against itself reaches."""
        return max(abs(self.null.low - 1), abs(self.null.high - 1))

    @property
    def measured(self) -> list[Measurement]:
        """Every measurement of every process."""
        return [m for process in self.processes for m in (process.compressed, process.null) if m]

    @property
    def is_ahead(self) -> bool:
        """Whether some of them ran ahead of other processes."""
        return any(m.machine.get("is_ahead") for m in self.measured)

    @property
    def timed_s(self) -> float:
        """Seconds of all runs that were timed."""
        return float(sum(sum(m.samples_s) + sum(m.reference_s) for m in self.measured))

    @property
    def baseline(self) -> Interval:
        """Seconds of the dense network: the geometric mean over processes of the medians of rounds that count."""
        return self._latency([[dense_s for _, dense_s in process] for process in self.counted])

    @property
    def compressed(self) -> Interval:
        """Seconds of the compressed network, likewise."""
        return self._latency([[samples_s for samples_s, _ in process] for process in self.counted])

    def _latency(self, processes: Sequence[Sequence[NDArray[np.float64]]]) -> Interval:
        return latency_interval([np.concatenate(blocks) for blocks in processes], confidence=self.speedup.confidence)

    @property
    def supported_fraction(self) -> float | None:
        """Fraction of the compressed network's operations that the runtime's own kernels compute."""
        return self.processes[-1].compressed.supported_fraction


def measure_speedup(
    bench: Bench,
    dense: Path,
    compressed: Path,
    protocol: Protocol,
    *,
    seed: int,
    stated_dense_s: float | None = None,
    on_process: Callable[[int, int], None] | None = None,
    earlier: Sequence[ProcessSamples] = (),
    earlier_s: float = 0.0,
    keep: KeepProcess = lambda _: None,
) -> SpeedupEvidence:
    """Time both networks in turns in fresh processes, until the interval is narrow or processes or time are used up.

    When to stop depends on the width alone, never on whether the claim would hold.

    Args:
        dense: what the compressed network is timed in turns with.
        stated_dense_s: a dense latency to take instead of ``dense``'s own, where that network is not at hand.
        earlier: processes of the same measurement, which was interrupted.
        earlier_s: how long ago it began.
        keep: told of every process, so that this one may go on after an interruption as well.

    Raises:
        RuntimeMissingError: a network does not run.
    """
    processes, failures = list(earlier), list[str]()
    for process in earlier:
        bench.nearest.saw(process.compressed.distance_s)
    groups = [[Candidate("compressed", compressed)], [Candidate("dense again", dense)]]
    begun = time.monotonic() - earlier_s
    end = begun + earlier_s + (np.inf if protocol.budget_s is None else protocol.budget_s)
    while not _is_enough(processes, protocol, bench.nearest.seconds, time.monotonic() > end):
        number = len(processes)
        due = begun + protocol.spread_s * min(number / max(1, protocol.processes - 1), 1)
        time.sleep(max(0.0, min(due, end) - time.monotonic()))
        wanted = groups if number < protocol.null_processes else groups[:1]
        seed_now = seed + number + len(failures)
        try:
            measured = bench.measure(Candidate("dense", dense), wanted, seed=seed_now, effort=protocol.effort)
            processes.append(_process_samples([group[0] for group in measured], stated_dense_s))
        except RuntimeMissingError as error:
            failures.append(str(error).splitlines()[0])
            if not processes or len(failures) > MOST_FAILURES:
                raise
            continue
        keep(processes[-1])
        if on_process:
            on_process(len(processes), protocol.most_processes)
    evidence = evidence_of(processes, protocol, bench.nearest.seconds)
    return replace(evidence, span_s=time.monotonic() - begun, failures=tuple(failures))


def _is_enough(processes: Sequence[ProcessSamples], protocol: Protocol, nearest_s: float | None, is_late: bool) -> bool:
    """Whether the interval is narrow enough, or processes or time are used up."""
    if len(processes) >= min(FEWEST if is_late else np.inf, protocol.most_processes):
        return True
    return len(processes) >= protocol.processes and _half_width(processes, protocol, nearest_s) <= protocol.half_width


def _process_samples(measured: Sequence[Measurement], stated_dense_s: float | None) -> ProcessSamples:
    for measurement in measured:
        if measurement.error:
            raise RuntimeMissingError(f"The {measurement.label} network failed while it was timed: {measurement.error}")
    compressed = measured[0]
    if stated_dense_s is not None:
        compressed = replace(compressed, reference_s=(stated_dense_s,) * len(compressed.samples_s))
    return ProcessSamples(compressed, measured[1] if len(measured) > 1 else None)


def _half_width(processes: Sequence[ProcessSamples], protocol: Protocol, nearest_s: float | None) -> float:
    those_that_count, _ = _counted(processes, protocol, nearest_s)
    return speedup_interval(those_that_count, confidence=protocol.confidence).half_width


def _counted(
    processes: Sequence[ProcessSamples], protocol: Protocol, nearest_s: float | None
) -> tuple[list[Process], bool]:
    fewest = max(2, min(protocol.processes, len(processes)) // 2)  # a budget allows for few
    return counted([process.compressed for process in processes], nearest_s, fewest)


def disturbances_of(evidence: SpeedupEvidence, bench: Bench) -> tuple[str, ...]:
    """What kept the machine from its full speed, and which processes failed, in words."""
    found = name_disturbances(
        [m.machine for m in evidence.measured],
        evidence.timed_s,
        threads=bench.target.threads,
        cores=bench.device.cores(),
    )
    return (*found, *(f"a measuring process failed and does not count: {text}" for text in evidence.failures))


def evidence_of(
    processes: Sequence[ProcessSamples], protocol: Protocol, nearest_s: float | None = None
) -> SpeedupEvidence:
    """What the processes show: intervals over the undisturbed rounds, or over all where there were too few.

    Args:
        nearest_s: the shortest distance of the cores known, in seconds.
    """
    compressed = [process.compressed for process in processes]
    those_that_count, is_disturbed = _counted(processes, protocol, nearest_s)
    null = [process.null for process in processes if process.null]
    quiet_null = [] if is_disturbed else by_process(null, True, nearest_s)
    return SpeedupEvidence(
        speedup_interval(those_that_count, confidence=protocol.confidence),
        speedup_interval(by_process(compressed, False), confidence=protocol.confidence),
        speedup_interval(
            quiet_null if len(quiet_null) > 1 else by_process(null, False), confidence=protocol.confidence
        ),
        tuple(processes),
        tuple(those_that_count),
        1 - undisturbed_share(compressed, nearest_s),
        is_disturbed,
    )

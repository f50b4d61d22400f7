"""Plans become files, files become measurements, and every measurement is kept the moment it is there."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.context import Run
from pipeline.run_folder import Log, digest
from profilers.latency_table import Choice, PlanMeasurement
from profilers.measure import Candidate, Effort, Measurement
from profilers.profile import MeasurePlans
from profilers.statistics import undisturbed_rounds

PLANS_A_WORKER = 8
TABLE_ERROR = 0.01
"""Relative error of a good table: what a measurement's own error is held against."""
PROFILE = Effort(warmups=2, rounds=30, seconds=1.5)
CHECK = Effort(warmups=3, rounds=40, seconds=4.0)
SOLVED_WEIGHT, NEIGHBOUR_WEIGHT = 6.0, 2.0
RETRIES, CHECK_RETRIES = 3, 4
FEWEST_ROUNDS = 8
"""Undisturbed rounds that a measurement needs to count in full."""
DISTURBED_WEIGHT = 0.2

Masks = Mapping[str, NDArray[np.bool_]]


class PlanBench:
    """Measures plans in turns with the dense network, and remembers what was measured.

    The log in the run folder belongs to one host, runtime and network.

    Args:
        run: whose network, target and folder these are.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        key = digest("plans in turns", run.host_key, run.model_key, [level.key for level in run.levels])
        self._log = Log(run.folder.file("measurements.jsonl"), key)
        rows = [row["reference_s"] for row in self._log.values() if row["reference_s"]]
        self._quiet_s = [float(np.quantile(reference_s, 0.2)) for reference_s in rows]

    def plans(self, on_plan: Callable[[int], None]) -> MeasurePlans:
        """A function that measures plans for the latency table; ``on_plan`` hears how many are done in all."""
        done = 0

        def measure(choices: Sequence[Choice], kind: str) -> list[PlanMeasurement | None]:
            nonlocal done
            results: list[PlanMeasurement | None] = []
            for start in range(0, len(choices), PLANS_A_WORKER):
                chunk = choices[start : start + PLANS_A_WORKER]
                self._measure_missing(chunk)
                results += [self._recall(_name(choice), choice, kind) for choice in chunk]
                done += len(chunk)
                on_plan(done)
            return results

        return measure

    def solved(self, choice: Choice, masks: Masks, nearby: Sequence[Choice]) -> list[PlanMeasurement]:
        """A solved plan with the zeros that it will ship with, in two processes, then its neighbours."""
        with tempfile.TemporaryDirectory(dir=self._run.folder.path, prefix="plans-") as folder:
            path = Path(folder, "solved.onnx")
            self._run.patcher.write_masks(masks, path)
            name = "solved:" + _name(choice) + digest({unit: mask_digest(mask) for unit, mask in masks.items()})
            if name not in self._log:
                samples: list[Measurement] = []
                for seed in (0, 1):
                    samples += self._undisturbed([[Candidate("solved plan", path)]], CHECK, seed, CHECK_RETRIES)
                self._log.add(name, _pooled(samples))
        self._measure_missing(nearby)
        found = [self._recall(name, choice, "solved", SOLVED_WEIGHT)]
        found += [self._recall(_name(near), near, "neighbour", NEIGHBOUR_WEIGHT) for near in nearby]
        return [plan for plan in found if plan is not None]

    def dense_s(self) -> float:
        """Median seconds of the dense network, from a process of its own."""
        if "dense" not in self._log:
            (measured,) = self._undisturbed([[self._run.dense_candidate]], CHECK, 0)
            self._log.add("dense", _row(measured))
        return float(np.median(self._log["dense"]["samples_s"]))

    def quiet_s(self) -> float:
        """Seconds of the dense network while nothing else used the machine: the fastest fifth of what was seen."""
        return float(np.quantile(self._quiet_s, 0.2)) if self._quiet_s else float("inf")

    def _measure_missing(self, choices: Sequence[Choice]) -> None:
        missing = [choice for choice in dict.fromkeys(choices) if _name(choice) not in self._log]
        with tempfile.TemporaryDirectory(dir=self._run.folder.path, prefix="plans-") as folder:
            groups = []
            for number, choice in enumerate(missing):
                path = Path(folder, f"{number}.onnx")
                self._run.patcher.write(self._run.plan_of(choice), path)
                groups.append([Candidate(f"plan {number}", path)])
            for choice, measured in zip(missing, self._undisturbed(groups, PROFILE, len(self._log)), strict=True):
                self._log.add(_name(choice), _row(measured))

    def _undisturbed(
        self, groups: Sequence[Sequence[Candidate]], effort: Effort, seed: int, retries: int = RETRIES
    ) -> list[Measurement]:
        """Measure every group's first member, and a few times more those during which the dense network was slow.

        Turns cancel what slows both networks by one factor; a neighbour that takes cores or caches away they do not.
        """
        results = self._measure(groups, effort, seed)
        self._quiet_s += [_quiet_s(measured) for measured in results if not measured.error]
        for attempt in range(1, retries + 1):
            quiet_s = self.quiet_s()
            rounds = [quiet_rounds(measured, quiet_s) for measured in results]
            again = [
                i for i, m in enumerate(results) if not m.error and rounds[i] < min(FEWEST_ROUNDS, len(m.samples_s))
            ]
            if not again:
                break
            repeated = self._measure([groups[i] for i in again], effort, seed + 1000 * attempt)
            for i, measured in zip(again, repeated, strict=True):
                if quiet_rounds(measured, quiet_s) > rounds[i]:
                    results[i] = measured
        return results

    def _measure(self, groups: Sequence[Sequence[Candidate]], effort: Effort, seed: int) -> list[Measurement]:
        if not groups:
            return []
        measured = self._run.bench.measure(self._run.dense_candidate, groups, seed=seed, effort=effort)
        return [group[0] for group in measured]

    def _recall(self, name: str, choice: Choice, kind: str, weight: float = 1.0) -> PlanMeasurement | None:
        row = self._log[name]
        if row["error"]:
            self._run.reporter.warn(f"a plan could not be measured: {row['error']}")
            return None
        samples, reference = tuple(row["samples_s"]), tuple(row["reference_s"])
        relative, confidence = undisturbed_ratio(samples, reference, self.quiet_s())
        return PlanMeasurement(choice, relative, weight * confidence, kind, samples, reference)


def undisturbed_ratio(samples_s: Sequence[float], reference_s: Sequence[float], quiet_s: float) -> tuple[float, float]:
    """Latency relative to the dense network's, over the undisturbed rounds, and its weight.

    Where too few are undisturbed all of them count, for little: what disturbs slows the networks by unlike factors.
    """
    samples, reference = np.asarray(samples_s), np.asarray(reference_s)
    (keep,) = undisturbed_rounds([reference], quiet_s)
    weight = 1.0
    if keep.sum() < min(FEWEST_ROUNDS, len(keep)):
        keep, weight = np.ones_like(keep), DISTURBED_WEIGHT
    samples, reference = samples[keep], reference[keep]
    return float(np.median(samples) / np.median(reference)), weight * trust(samples, reference)


def quiet_rounds(measured: Measurement, quiet_s: float) -> int:
    """How many rounds of a measurement were undisturbed."""
    return int(undisturbed_rounds([measured.reference_s], quiet_s)[0].sum()) if measured.reference_s else 0


def trust(samples_s: NDArray[np.float64], reference_s: NDArray[np.float64]) -> float:
    """Weight of a measurement by the spread of its rounds: 1 at none, a half where it equals the table's own error."""
    log_ratios = np.log(samples_s / reference_s)
    deviation = 1.4826 * np.median(np.abs(log_ratios - np.median(log_ratios)))
    error = 1.2533 * deviation / np.sqrt(len(log_ratios))  # of a median
    return float(1 / (1 + (error / TABLE_ERROR) ** 2))


def _quiet_s(measured: Measurement) -> float:
    return float(np.quantile(measured.reference_s, 0.2))


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Digest of a mask's zeros."""
    return digest(np.packbits(mask).tobytes().hex())


def _name(choice: Choice) -> str:
    return ",".join(map(str, choice))


def _row(measured: Measurement) -> dict[str, Any]:
    return {"samples_s": measured.samples_s, "reference_s": measured.reference_s, "error": measured.error}


def _pooled(measured: Sequence[Measurement]) -> dict[str, Any]:
    """Samples of several processes in one row; one that failed makes the row an error."""
    return {
        "samples_s": [s for m in measured for s in m.samples_s],
        "reference_s": [s for m in measured for s in m.reference_s],
        "error": next((m.error for m in measured if m.error), None),
    }

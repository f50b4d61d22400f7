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
from profilers.statistics import Quiet, undisturbed_rounds
from targets.errors import RuntimeMissingError

PLANS_A_WORKER = 8
DENSE_PROCESSES = 4
REFERENCE_SPARSITY = 0.85
TABLE_ERROR = 0.01
"""Relative error of a good table: what a measurement's own error is held against."""
PROFILE = Effort(warmups=2, rounds=30, seconds=1.5)
CHECK = Effort(warmups=3, rounds=40, seconds=3.0)
SOLVED_WEIGHT, NEIGHBOUR_WEIGHT = 6.0, 2.0
RETRIES = 2
FEWEST_ROUNDS = 8
"""Undisturbed samples with which the others are left out."""

Masks = Mapping[str, NDArray[np.bool_]]


class PlanBench:
    """Measures plans in turns with a reference plan, and remembers what was measured.

    The reference is a uniform plan, not the dense network: neighbours slow dense and sparse networks by unlike factors,
    but two sparse ones nearly alike. How much slower dense is than the reference is measured on its
    own, over several processes (docs/decisions/0012).

    The log in the run folder belongs to one host, runtime and network.

    Args:
        run: whose network, target and folder these are.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        key = digest("plans, by a reference plan", run.host_key, run.model_key, [level.key for level in run.levels])
        self._log = Log(run.folder.file("measurements.jsonl"), key)
        for row in self._log.values():
            run.bench.nearest.saw(row["distance_s"])

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
        name = "solved:" + _name(choice) + digest({unit: mask_digest(mask) for unit, mask in masks.items()})
        if name not in self._log:
            with self._folder() as folder:
                path = Path(folder, "solved.onnx")
                self._run.patcher.write_masks(masks, path)
                samples = []
                for seed in (0, 1):
                    groups = [[Candidate("solved plan", path)], [self._run.dense_candidate]]
                    solved, dense = self._measure(groups, CHECK, seed)
                    samples.append(solved)
                    self._add_dense(dense)
            self._log.add(name, _pooled(samples))
        self._measure_missing(nearby)
        found = [self._recall(name, choice, "solved", SOLVED_WEIGHT)]
        found += [self._recall(_name(near), near, "neighbour", NEIGHBOUR_WEIGHT) for near in nearby]
        return [plan for plan in found if plan is not None]

    def dense_s(self) -> float:
        """Median seconds of the dense network, over several processes."""
        return float(np.median(np.concatenate([row["samples_s"] for row in self._dense_rows()])))

    def _dense_rows(self) -> list[Mapping[str, Any]]:
        """Measurements of the dense network against the reference, one a process."""
        missing = DENSE_PROCESSES - self._dense_count()
        for seed in range(missing):
            (measured,) = self._measure([[self._run.dense_candidate]], CHECK, seed)
            self._add_dense(measured)
        rows = [self._log[f"dense:{number}"] for number in range(self._dense_count())]
        good = [row for row in rows if not row["error"]]
        if not good:
            raise RuntimeMissingError(f"The dense network failed every time it was timed: {rows[0]['error']}")
        return good

    def _dense_over_reference(self) -> float:
        """How many times longer the dense network takes than the reference plan, over all processes."""
        pairs = undisturbed(self._dense_rows(), self._quiet())
        return float(np.exp(np.mean([np.log(np.median(dense) / np.median(reference)) for dense, reference in pairs])))

    def quiet_dense(self) -> Quiet:
        """What measuring plans taught about the undisturbed machine, for those who time the dense network."""
        dense_s = [dense_s for dense_s, _ in undisturbed(self._dense_rows(), self._quiet())]
        return Quiet(self._run.bench.nearest.seconds, float(np.quantile(np.concatenate(dense_s), 0.1)))

    def _quiet(self) -> Quiet:
        """The same for plans; how fast the reference is depends on the network that it takes turns with."""
        return Quiet(self._run.bench.nearest.seconds)

    def _dense_count(self) -> int:
        return sum(1 for number in range(len(self._log)) if f"dense:{number}" in self._log)

    def _add_dense(self, measured: Measurement) -> None:
        self._log.add(f"dense:{self._dense_count()}", _row(measured))

    def _measure_missing(self, choices: Sequence[Choice]) -> None:
        missing = [choice for choice in dict.fromkeys(choices) if _name(choice) not in self._log]
        if not missing:
            return
        with self._folder() as folder:
            groups = []
            for number, choice in enumerate(missing):
                path = Path(folder, f"{number}.onnx")
                self._run.patcher.write(self._run.plan_of(choice), path)
                groups.append([Candidate(f"plan {number}", path)])
            for choice, measured in zip(missing, self._measure(groups, PROFILE, len(self._log)), strict=True):
                self._log.add(_name(choice), _row(measured))

    def _measure(self, groups: Sequence[Sequence[Candidate]], effort: Effort, seed: int) -> list[Measurement]:
        """Measure every group's first member, and once or twice more those that the machine was disturbed during."""
        with self._folder() as folder:
            path = Path(folder, "reference.onnx")
            self._run.patcher.write(self._run.plan_of(self._reference), path)
            reference = Candidate("reference plan", path)
            results: list[Measurement] = []
            left = list(range(len(groups)))
            for attempt in range(1 + RETRIES):
                chosen = [groups[index] for index in left]
                measured = self._run.bench.measure(reference, chosen, seed=seed + 1000 * attempt, effort=effort)
                for index, (result,) in zip(left, measured, strict=True):
                    if index == len(results):
                        results.append(result)
                    elif self._quiet_rounds(result) > self._quiet_rounds(results[index]):
                        results[index] = result
                left = [index for index, result in enumerate(results) if self._is_disturbed(result)]
                if not left:
                    break
        return results

    def _is_disturbed(self, measured: Measurement) -> bool:
        return self._quiet_rounds(measured) < min(FEWEST_ROUNDS, len(measured.samples_s))  # never a failed one

    def _quiet_rounds(self, measured: Measurement) -> int:
        if measured.error:
            return 0
        (keep,) = undisturbed_rounds([measured.reference_s], [measured.distance_s], self._quiet())
        return int(keep.sum())

    @property
    def _reference(self) -> Choice:
        level = int(np.argmin([abs(level.amount - REFERENCE_SPARSITY) for level in self._run.levels]))
        return tuple(level if unit.prunable else 0 for unit in self._run.units)

    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=self._run.folder.path, prefix="plans-")

    def _recall(self, name: str, choice: Choice, kind: str, weight: float = 1.0) -> PlanMeasurement | None:
        row = self._log[name]
        if row["error"]:
            self._run.reporter.warn(f"a plan could not be measured: {row['error']}")
            return None
        ((samples, reference),) = undisturbed([row], self._quiet())
        relative = float(np.median(samples) / np.median(reference)) / self._dense_over_reference()
        return PlanMeasurement(
            choice,
            relative,
            weight * trust(samples, reference),
            kind,
            tuple(row["samples_s"]),
            tuple(row["reference_s"]),
        )


Samples = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Seconds of a model and of the reference [rounds]."""


def undisturbed(rows: Sequence[Mapping[str, Any]], quiet: Quiet) -> list[Samples]:
    """Samples of the rows that were measured while the machine was quiet; all of every row if it hardly ever was."""
    everything = [(np.asarray(row["samples_s"]), np.asarray(row["reference_s"])) for row in rows]
    kept = undisturbed_rounds([reference for _, reference in everything], [row["distance_s"] for row in rows], quiet)
    pairs = [(s[keep], r[keep]) for (s, r), keep in zip(everything, kept, strict=True) if keep.sum() >= FEWEST_ROUNDS]
    return pairs or everything


def trust(samples_s: NDArray[np.float64], reference_s: NDArray[np.float64]) -> float:
    """Weight of a measurement by the spread of its rounds: 1 at none, a half where it equals the table's own error."""
    log_ratios = np.log(samples_s / reference_s)
    deviation = 1.4826 * np.median(np.abs(log_ratios - np.median(log_ratios)))
    error = 1.2533 * deviation / np.sqrt(len(log_ratios))  # of a median
    return float(1 / (1 + (error / TABLE_ERROR) ** 2))


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Digest of a mask's zeros."""
    return digest(np.packbits(mask).tobytes().hex())


def _name(choice: Choice) -> str:
    return ",".join(map(str, choice))


def _row(measured: Measurement) -> dict[str, Any]:
    return {name: getattr(measured, name) for name in ("samples_s", "reference_s", "distance_s", "error")}


def _pooled(measured: Sequence[Measurement]) -> dict[str, Any]:
    """Samples of several processes in one row; one that failed makes the row an error."""
    return {
        "samples_s": [s for m in measured for s in m.samples_s],
        "reference_s": [s for m in measured for s in m.reference_s],
        "distance_s": [s for m in measured for s in m.distance_s],
        "error": next((m.error for m in measured if m.error), None),
    }

"""Plans become files, files become measurements, and every measurement is kept the moment it is there."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.context import Run
from pipeline.run_folder import Log, digest
from profilers.latency_table import Choice, PlanMeasurement
from profilers.measure import Candidate, Effort, Measurement
from profilers.profile import MeasurePlans, uniform_plan
from profilers.statistics import Process, counted, log_speedup, speedup_interval
from profilers.together import measure_together
from targets.errors import RuntimeMissingError
from targets.files import LEFT

LOG = "measurements.jsonl"
"""Every measurement of plans in a run folder."""
SOLVED = "solved:"
"""In the names of rows that time a solved plan."""
TEMPORARY = "plans-"
"""How folders begin that hold plans' files while they are measured."""
PLANS_A_WORKER = 12
PLAN_PROCESSES = 2
DENSE_PROCESSES = 4
CHECK_PROCESSES = 8
FEWEST_CHECKS = 3
"""Processes after which a solved plan may prove to be none of those wanted; one more and it may be known well."""
WELL_KNOWN = 0.006
"""Relative half width of a solved plan's interval at which it is measured no further."""
SETTLED = 0.8
"""Confidence of that interval: a guide for the search, whose plan's certificate measures anew."""
REFERENCE_SPARSITY = 0.85
TABLE_ERROR = 0.01
"""Relative error of a good table: what a measurement's own error is held against."""
PROFILE = Effort(warmups=2, rounds=6, seconds=0.5, patience_s=1.0)
CHECK = Effort(warmups=2, rounds=6, seconds=1.0, compilations=3, patience_s=1.0)
SOLVED_WEIGHT, NEIGHBOUR_WEIGHT = 6.0, 2.0

Masks = Mapping[str, NDArray[np.bool_]]


def plan_log(run: Run) -> Log:
    """Every measurement of plans in this run's folder, by its host, runtime, network and levels."""
    key = digest("plans, several processes each", run.host_key, run.model_key, run.units_key)
    return Log(run.folder.file(LOG), key)


def recall_distances(run: Run) -> None:
    """Tell the run's bench how near each other the cores were while plans were measured."""
    for row in plan_log(run).values():
        run.bench.nearest.saw(row["distance_s"])


def forget_measurements(run: Run, stage: str) -> None:
    """Have a stage measure anew: the profile every plan and the dense network, the search the plans that it solved."""
    log = plan_log(run)
    log.keep([name for name in log.names() if stage == "search" and SOLVED not in name])


def sweep(folder: Path) -> None:
    """Remove what a killed process left of plans that it measured, and of files that it wrote."""
    for left in folder.glob(f"{TEMPORARY}*/"):
        shutil.rmtree(left, ignore_errors=True)
    for left in (*folder.glob(LEFT), *folder.glob(f"*/{LEFT}")):
        left.unlink(missing_ok=True)


class PlanBench:
    """Measures plans in turns with a reference plan, and remembers what was measured.

    The reference is a uniform plan, not the dense network: neighbours slow dense and sparse networks by unlike factors,
    but two sparse ones nearly alike. How much slower dense is than the reference is measured on its own, over several
    processes (docs/decisions/0012). A solved plan is timed against dense, as a certificate does it.

    The log in the run folder belongs to one host, runtime and network.

    Args:
        run: whose network, target and folder these are.
        plan_processes: that measure each plan of a table.
        check_processes: that measure a solved plan; None for as many as a certificate needs to agree with it.
    """

    def __init__(self, run: Run, plan_processes: int = PLAN_PROCESSES, check_processes: int | None = None) -> None:
        self._run, self._plan_processes, self._check_processes = run, plan_processes, check_processes or CHECK_PROCESSES
        self._log = plan_log(run)
        if run.failed_before is None:
            run.failed_before = {name for name in self._log.names() if self._log[name]["error"]}
        self._failed_before = run.failed_before
        recall_distances(run)

    def plans(self, on_plan: Callable[[int], None]) -> MeasurePlans:
        """A function that measures plans for the latency table; ``on_plan`` hears how many are done in all."""
        done = 0

        def measure(choices: Sequence[Choice], kind: str) -> list[PlanMeasurement | None]:
            nonlocal done
            results: list[PlanMeasurement | None] = []
            for start in range(0, len(choices), PLANS_A_WORKER):
                chunk = choices[start : start + PLANS_A_WORKER]
                self._measure_missing(chunk, partial(self._tell, on_plan, done, chunk))
                results += [self._recall(self._rows_of(choice), choice, kind) for choice in chunk]
                done += len(chunk)
                on_plan(done)
            return results

        return measure

    def _tell(self, on_plan: Callable[[int], None], earlier: int, choices: Sequence[Choice]) -> None:
        """Say how many plans are done, by the rows in the log."""
        rows = sum(name in self._log for choice in choices for name in self._rows_of(choice))
        on_plan(earlier + rows // self._plan_processes)

    def solved(self, choice: Choice, masks: Masks, wanted: tuple[float, float] = (0.0, np.inf)) -> PlanMeasurement:
        """A solved plan with the zeros that it will ship with, as a certificate measures it.

        Args:
            masks: layer → where its weights stay.
            wanted: speedups; a plan whose interval is narrow, or lies outside of these, is not measured any further.

        Raises:
            RuntimeMissingError: it failed in every process.
        """
        name = SOLVED + _name(choice) + digest({unit: mask_digest(mask) for unit, mask in masks.items()})
        names = [f"{process}:{name}" for process in range(self._check_processes)]
        with self._folder() as folder:
            path = Path(folder, "solved.onnx")
            self._run.patcher.write_masks(masks, path, self._run.plan_of(choice))
            for seed, row_name in enumerate(names):
                if self._is_missing(row_name):
                    candidates = {row_name: Candidate("solved plan", path)}
                    self._measure(self._run.dense_candidate, candidates, CHECK, seed)
                if seed + 1 >= FEWEST_CHECKS and self._is_settled(names[: seed + 1], wanted):
                    names = names[: seed + 1]
                    break
        found = self._recall(names, choice, "solved", SOLVED_WEIGHT, 1.0)
        if found is None:
            raise RuntimeMissingError(
                f"{self._run.bench.runtime.name} failed on the solved plan in every one of "
                f"{self._check_processes} processes: try another --seed, or another --runtime."
            )
        return found

    def _is_settled(self, names: Sequence[str], wanted: tuple[float, float]) -> bool:
        """Whether what is measured of a solved plan says its speedup well, or that it is none of those wanted."""
        good = [m for m in self._logged(names) if not m.error]
        processes = self._counted(good) if good else []
        if len(processes) < FEWEST_CHECKS:
            return False
        interval = speedup_interval(processes, confidence=SETTLED)
        is_well_known = interval.half_width <= WELL_KNOWN and len(processes) > FEWEST_CHECKS
        return is_well_known or interval.high < wanted[0] or interval.low > wanted[1]

    def nearby(self, choices: Sequence[Choice]) -> list[PlanMeasurement]:
        """Plans near a solved one, as the table's are measured; those that fail are left out."""
        self._measure_missing(choices)
        found = [self._recall(self._rows_of(near), near, "neighbour", NEIGHBOUR_WEIGHT) for near in choices]
        return [plan for plan in found if plan is not None]

    def dense_s(self) -> float:
        """Median seconds of the dense network, over several processes."""
        processes = self._counted(self._dense())
        return float(np.median(np.concatenate([samples_s for process in processes for samples_s, _ in process])))

    def _dense(self) -> list[Measurement]:
        """Measurements of the dense network against the reference plan, one a process."""
        names = [f"{process}:dense" for process in range(DENSE_PROCESSES)]
        if any(self._is_missing(name) for name in names):
            self._measure_dense(names)
        measured = self._logged(names)
        good = [m for m in measured if not m.error]
        if not good:
            raise RuntimeMissingError(f"The dense network failed every time it was timed: {measured[0].error}")
        return good

    def _measure_dense(self, names: Sequence[str]) -> None:
        with self._reference_file() as reference:
            for seed, name in enumerate(names):
                if self._is_missing(name):
                    self._measure(reference, {name: self._run.dense_candidate}, CHECK, seed)

    def _measure_missing(self, choices: Sequence[Choice], on_row: Callable[[], None] = lambda: None) -> None:
        missing = [c for c in dict.fromkeys(choices) if any(map(self._is_missing, self._rows_of(c)))]
        if not missing:
            return
        with self._folder() as folder, self._reference_file() as reference:
            plans = {}
            for number, choice in enumerate(missing):
                path = Path(folder, f"{number}.onnx")
                self._run.patcher.write(self._run.plan_of(choice), path)
                plans[choice] = Candidate(f"plan {number}", path)
            for process in range(self._plan_processes):
                rows = [(self._rows_of(choice)[process], plan) for choice, plan in plans.items()]
                mixed = np.random.default_rng(process).permutation(len(rows))  # each time beside other plans
                left = {name: plan for name, plan in (rows[index] for index in mixed) if self._is_missing(name)}
                self._measure(reference, left, PROFILE, len(self._log), on_row)

    def _is_missing(self, name: str) -> bool:
        """Whether a row is to be measured: what failed in an earlier command may not fail now."""
        return name not in self._log or name in self._failed_before

    def _rows_of(self, choice: Choice) -> list[str]:
        """Names of a plan's rows in the log, one a process."""
        return [f"{process}:{_name(choice)}" for process in range(self._plan_processes)]

    def _measure(
        self,
        reference: Candidate,
        candidates: Mapping[str, Candidate],
        effort: Effort,
        seed: int,
        on_row: Callable[[], None] = lambda: None,
    ) -> None:
        """Measure candidates by the names of their rows, and log each as it comes."""

        def keep(name: str, measured: Measurement) -> None:
            self._log.add(name, _row(measured))
            self._failed_before.discard(name)
            on_row()

        measure_together(self._run.bench, reference, candidates, keep, seed=seed, effort=effort)

    @contextmanager
    def _reference_file(self) -> Iterator[Candidate]:
        """A uniform plan's file, while it is needed."""
        level = int(np.argmin([abs(level.amount - REFERENCE_SPARSITY) for level in self._run.levels]))
        choice = uniform_plan(self._run.table_units, level)
        with self._folder() as folder:
            path = Path(folder, "reference.onnx")
            self._run.patcher.write(self._run.plan_of(choice), path)
            yield Candidate("reference plan", path)

    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(dir=self._run.folder.path, prefix=TEMPORARY)

    def _recall(
        self, names: Sequence[str], choice: Choice, kind: str, weight: float = 1.0, reference: float | None = None
    ) -> PlanMeasurement | None:
        """What rows of the log say of a plan; ``reference`` is their reference's latency over the dense network's."""
        measured = self._logged(names)
        good = [m for m in measured if not m.error]
        if not good:
            self._run.reporter.warn(f"a plan could not be measured: {measured[0].error}")
            return None
        if reference is None:
            reference = 1 / ratio(self._counted(self._dense()))
        processes = self._counted(good)
        return PlanMeasurement(
            choice,
            ratio(processes) * reference,
            weight * trust(processes),
            kind,
            tuple(s for m in good for s in m.samples_s),
            tuple(s for m in good for s in m.reference_s),
            noise(processes),
        )

    def _logged(self, names: Sequence[str]) -> list[Measurement]:
        return [Measurement(name, **self._log[name]) for name in names]

    def _counted(self, measured: Sequence[Measurement]) -> list[Process]:
        """Samples of the undisturbed rounds, or of all where those are few."""
        return counted(measured, self._run.bench.nearest.seconds, (len(measured) + 1) // 2)[0]


def ratio(processes: Sequence[Process]) -> float:
    """Latency of a model over the reference's: the geometric mean over processes, and in each over compilations."""
    return float(np.exp(-np.mean([log_speedup(process) for process in processes])))


def noise(processes: Sequence[Process]) -> float:
    """Relative standard error of `ratio`; 0 where one process cannot tell."""
    logs = [log_speedup(process) for process in processes]
    return float(np.std(logs, ddof=1) / np.sqrt(len(logs))) if len(logs) > 1 else 0.0


def trust(processes: Sequence[Process]) -> float:
    """Weight of a measurement by the spread of its compilations: 1 at none, a half at the table's own error."""
    logs = [log_speedup([block]) for process in processes for block in process]
    if len(logs) < 2:
        return 0.5
    error = np.std(logs, ddof=1) / np.sqrt(len(logs))
    return float(1 / (1 + (error / TABLE_ERROR) ** 2))


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Digest of a mask's zeros."""
    return digest(np.packbits(mask).tobytes().hex())


def _name(choice: Choice) -> str:
    return ",".join(map(str, choice))


def _row(measured: Measurement) -> dict[str, Any]:
    names = ("samples_s", "reference_s", "compilation", "distance_s", "waited_share", "error")
    return {name: getattr(measured, name) for name in names}

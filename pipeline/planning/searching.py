"""One search over one database: proposes plans for corrected tables and remembers what it learned."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.compression.database import Database
from pipeline.compression.stitch import Stitcher
from pipeline.console import Task
from pipeline.context import Run
from pipeline.families.registry import layer_levels
from pipeline.models.base import Unit
from pipeline.models.inference import in_channels_last
from pipeline.planning.carrying import believed
from pipeline.planning.closed_loop import ACCEPTED, MOST_EXCESS, REFITS, LoopResult, Proposal, Round, run_loop
from pipeline.planning.evaluation import CandidateLosses, Candidates, EvaluationCosts, outputs_of
from pipeline.planning.measuring import PlanBench
from pipeline.run_folder import Log, digest
from pipeline.search.allocators import ALLOCATORS, Problem
from pipeline.search.losses import LossMemory, Plan
from pipeline.search.spdy import Knobs, Progress, TraceRow
from profilers.latency_table import Choice, LatencyTable, PlanMeasurement
from profilers.profile import neighbours
from targets.levels import Level

NEIGHBOURS = 4
"""Plans near a solved one that are measured with it."""
JUDGING_BYTES = 2**31
"""Of the calibration inputs and dense outputs that candidates are judged by: a gigabyte or two, and as much again while
they are made."""
JUDGING_S = 30.0
"""That the dense network may take for these samples on the target: a search asks for hundreds of passes over them."""
FEWEST_JUDGING = 16
JUDGING_BATCHES = 16
"""Into so many batches these samples are split where they are enough: after every one, plans that prove worse than the
incumbent are given up."""
STARTS_TOGETHER = 8
"""Random starts of a search that are judged in one race."""
LATER_EVALUATIONS = 60
"""Evaluations in the rounds after the first: the sensitivities are known, only the table was corrected."""


class Searcher:
    """Proposes plans with one allocator.

    Args:
        allocator: a key of `ALLOCATORS`.
        coefficients: [units] sensitivities that an earlier search learned; this one starts from them.
        start: the plan that it found, which allocators that refine plans go on from.
        on_evaluation: told the number of every evaluation, as the trace counts it, and the best loss so far.
    """

    def __init__(
        self,
        run: Run,
        database: Database,
        allocator: str,
        coefficients: NDArray[np.float64] | None = None,
        start: Choice | None = None,
        on_evaluation: Callable[[int, float], None] | None = None,
    ) -> None:
        self._run, self._allocator = run, ALLOCATORS[allocator]
        self.errors = measured_errors(run, database)
        self._prunable = np.array([unit.prunable for unit in run.units])
        self._memory = LossMemory()
        self.coefficients = coefficients
        self._choice = start
        self._seconds = self._preparing_s = 0.0
        self.trace: list[TraceRow] = []
        self._on_evaluation = on_evaluation
        self._database = database

    @cached_property
    def losses(self) -> CandidateLosses:
        """What candidates are judged by; made once an allocator asks, as it holds the samples and the dense outputs."""
        start = time.perf_counter()
        run, samples = self._run, judging_samples(self._run)
        key = digest("losses by even batches", run.database_key, run.calibration.sha256, samples, JUDGING_BATCHES)
        log = Log(run.folder.file("evaluations.jsonl"), key)
        shared = run.folder.file("shared")
        if not run.workers.is_here:
            shared.mkdir(exist_ok=True)
        losses = CandidateLosses(candidates_of(run, self._database), log, run.workers, shared)
        self._preparing_s = time.perf_counter() - start
        return losses

    def _losses(self, plans: Sequence[Plan], limit: float, share: float = 1.0) -> list[float]:
        return self.losses(plans, limit, share)

    def allocate(self, table: LatencyTable, budget_s: float, number: int, task: Task | None = None) -> Proposal:
        """A plan for a budget in seconds for the whole network; later rounds start from what was learned."""
        start = time.perf_counter()
        allocation = self._allocator(
            Problem(
                tuple(unit.name for unit in self._run.units),
                self._run.levels,
                self.errors,
                table.costs(),
                self._prunable,
                budget_s - table.fixed_s,
                magnitudes=magnitudes_of(self._run),
                evaluate=self._losses,
                rng=np.random.default_rng([self._run.config.seed, number]),
                error_model="quadratic" if self._run.only_unstructured else "measured",
                knobs=self._knobs(number, task),
                start=self._choice,
            )
        )
        if allocation.coefficients is not None:
            self.coefficients = allocation.coefficients
        self._choice = tuple(allocation.choice.tolist())
        self._seconds += time.perf_counter() - start
        first = len(self.trace)
        self.trace += [replace_evaluation(row, first) for row in allocation.trace]
        return Proposal(self._choice, allocation.loss)

    def effort(self) -> dict[str, float]:
        """Seconds of all searches so far, by what they went into, and how the evaluations were spared.

        What workers did at the same time counts as the time in which the search waited for it.
        """
        costs = (self.losses.costs if "losses" in self.__dict__ else EvaluationCosts()).to_json()
        parts = {name: costs[name] for name in ("stitching_s", "network_s", "loss_s")}
        at_once = sum(parts.values()) / costs["waited_s"] if costs["waited_s"] else 1.0
        solving_s = self._seconds - self._preparing_s - costs["waited_s"]
        spent = {"seconds": self._seconds, "preparing_s": self._preparing_s, "solving_s": solving_s}
        return costs | {name: seconds / max(1.0, at_once) for name, seconds in parts.items()} | spent

    @cached_property
    def _stitched(self) -> tuple[nn.Module, Stitcher]:
        """A network of its own for masks: allocators without a search need nothing of `losses`."""
        network = self._run.copy_of_dense()
        return network, Stitcher(network, self._database, units=self._run.units, ranges=self._run.ranges)

    def masks(self, choice: Choice) -> dict[str, NDArray[np.bool_]]:
        """Layer → where its weights stay, as the database has them."""
        plan = self._run.plan_of(choice)
        network, stitcher = self._stitched
        stitcher.apply(plan)
        modules = dict(network.named_modules())
        return {
            layer: modules[layer].get_parameter("weight").detach().numpy() != 0
            for layer, level in layer_levels(self._run.units, plan).items()
            if level.amount > 0
        }

    def _knobs(self, number: int, task: Task | None) -> Knobs:
        def show(progress: Progress) -> None:
            if self._on_evaluation:
                self._on_evaluation(len(self.trace) + progress.evaluations, progress.loss)
            if task:
                total = progress.evaluations + progress.evaluations_left
                task.update(progress.evaluations, f"best loss {progress.loss:.4f}", total)

        limit = self._run.config.evaluations
        knobs = Knobs(max_evaluations=limit, memory=self._memory, on_progress=show, batch=STARTS_TOGETHER)
        if self.coefficients is None:
            return knobs
        later = min(LATER_EVALUATIONS, limit) if number < REFITS else 1
        return replace(knobs, starts=0, extra_starts=(self.coefficients,), max_evaluations=later)


def magnitudes_of(run: Run) -> Callable[[str], NDArray[np.floating]]:
    """A unit's |weights| in ascending order."""
    layers = {unit.name: unit.layers for unit in run.units}

    def magnitudes(unit: str) -> NDArray[np.floating]:
        weights = [run.dense.get_parameter(f"{layer.name}.weight").detach().numpy().ravel() for layer in layers[unit]]
        return np.sort(np.abs(np.concatenate(weights)))

    return magnitudes


def candidates_of(run: Run, database: Database) -> Candidates:
    """What a run's candidate plans are judged by."""
    network = run.copy_of_dense()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    samples = judging_samples(run)
    batch_size = min(run.adapter.recipe.inference_batch, max(FEWEST_JUDGING, samples // JUDGING_BATCHES))
    inputs = torch.from_numpy(run.calibration_samples[:samples])
    return Candidates(
        network,
        database.folder.resolve(),
        tuple(run.units),
        run.levels,
        tuple(run.adapter.blocks(network)),
        in_channels_last(inputs),
        outputs_of(run.dense, inputs, batch_size),
        run.adapter.calibration_loss,
        batch_size,
        run.ranges,
    )


def judging_samples(run: Run) -> int:
    """How many calibration samples candidates are judged on: all, or as many as there is memory and time for.

    The time is the dense network's by the latency table, so that a search that goes on judges by as many.
    """
    one = run.calibration_samples[:1]
    sample_bytes = one.nbytes + outputs_of(run.dense, torch.from_numpy(one), 1).nbytes
    sample_s = LatencyTable.load(run.folder.file("latency_table.json")).dense_s / run.target.batch_size
    most = min(JUDGING_BYTES // sample_bytes, int(JUDGING_S / sample_s))
    return min(len(run.calibration_samples), max(FEWEST_JUDGING, most))


def measured_errors(run: Run, database: Database) -> NDArray[np.float64]:
    """[units, levels] relative reconstruction errors, of a block's layers added; zero for units that stay dense.

    Infinite where a unit has no such level.
    """
    measured = dict(zip(database.units, database.errors(), strict=True))
    column = {level: position for position, level in enumerate(database.levels)}

    def error(unit: Unit, level: Level) -> float:
        if level not in run.levels_of(unit):
            return float("inf") if unit.prunable else 0.0
        layers = layer_levels([unit], {unit.name: level}).items()
        return sum(float(measured[layer][column[own]]) for layer, own in layers if layer in measured)

    return np.array([[error(unit, level) for level in run.levels] for unit in run.units])


def replace_evaluation(row: TraceRow, offset: int) -> TraceRow:
    """The row, counted over all rounds."""
    return row._replace(evaluation=row.evaluation + offset)


def solve_in_loop(
    run: Run,
    searcher: Searcher,
    table: LatencyTable,
    speedup: float,
    say: Callable[[str], None],
    accepted: tuple[float, float] | None = None,
    processes: int | None = None,
    near: int = NEIGHBOURS,
) -> LoopResult:
    """The plan whose measured speedup is the requested one, found by closing the loop around one searcher.

    Args:
        accepted: see `run_loop`.
        processes: that measure each of its plans, see `PlanBench`.
        near: plans near each of its own that are measured with it.

    Raises:
        SpeedupError: no plan is that fast.
    """
    bench = PlanBench(run, check_processes=processes)
    least, most = accepted or ACCEPTED
    wanted = (speedup * (1 + least), speedup * (1 + most + 2 * MOST_EXCESS))
    rng = np.random.default_rng(run.config.seed)

    def measure(table: LatencyTable, choice: Choice) -> PlanMeasurement:
        return believed(table, choice) if run.carried else bench.solved(choice, searcher.masks(choice), wanted)

    def nearby(table: LatencyTable, choice: Choice) -> list[PlanMeasurement]:
        return [] if run.carried else bench.nearby(neighbours(table, choice, near, rng))

    def show(turn: Round) -> None:
        loss = f", loss {turn.loss:.4f}" if turn.loss is not None else ""
        say(
            f"round {turn.number + 1}: predicted {turn.predicted_speedup:.2f}x, "
            f"{'believed' if run.carried else 'measured'} {turn.measured_speedup:.2f}x{loss}"
        )

    with run.reporter.task("searching", run.config.evaluations) as task:

        def allocate(table: LatencyTable, budget_s: float, number: int) -> Proposal:
            return searcher.allocate(table, budget_s, number, task)

        rounds = run.config.rounds
        return run_loop(table, speedup, allocate, measure, nearby, most_rounds=rounds, accepted=accepted, on_round=show)

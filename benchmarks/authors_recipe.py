"""The recipe of SPDY's authors, written anew from their paper and from what their code does.

AdaPrune database: magnitude masks, Adam on one layer's weights, every level from the one before. Search: 100 random
vectors of coefficients, then neighbourhoods of a tenth of them down to one, 100 trials without an improvement each;
every evaluation copies the network and sees all samples, in eval mode with the dense network's batch-norm statistics.
Global AdaPrune: Adam on all parameters, 1e-5, 100 passes, the layers' normalised squared errors. What is ours in their
place: the exact dynamic program, the latency table with its closed loop, and the loss, which needs no labels.
"""

import copy
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calibration.batch_norm import reestimate_batch_norm
from calibration.statistics import collect_statistics
from pipeline.compression.adaprune import adaprune_plans
from pipeline.compression.database import Database, build_database
from pipeline.compression.stitch import Stitcher
from pipeline.console import Task
from pipeline.context import Run
from pipeline.planning.closed_loop import Proposal
from pipeline.planning.evaluation import outputs_of
from pipeline.planning.searching import measured_errors
from pipeline.search.error_models import quadratic
from pipeline.search.losses import LossMemory, Plan
from pipeline.search.spdy import Knobs, search
from pipeline.training.blocks import block_error, captured
from pipeline.training.masks import apply_masks, nonzero_masks
from pipeline.training.recovery import compressed_layers
from profilers.latency_table import Choice, LatencyTable

BATCH = 128
LATER_EVALUATIONS = 60
GLOBAL_LEARNING_RATE = 1e-5
GLOBAL_PASSES = 100


def adaprune_database(run: Run) -> Database:
    """Every unit at every level by AdaPrune, in the files of our database."""
    dense, batches = run.dense, run.calibration_samples.batches(run.adapter.recipe.statistics_batch)
    units = [unit for unit in run.units if unit.prunable]
    return build_database(
        units,
        dense.state_dict(),
        collect_statistics(dense, [unit.name for unit in units], batches),
        run.levels,
        run.folder.file("adaprune"),
        progress=lambda done, total, name: run.reporter.say(f"AdaPrune {done}/{total}: {name}"),
        plans=adaprune_plans(units, run.levels, dense, batches),
    )


class AuthorsSearcher:
    """Proposes plans as their search does; takes the place of `pipeline.planning.searching.Searcher`."""

    def __init__(self, run: Run, database: Database) -> None:
        self._run, self._database = run, database
        self.errors = measured_errors(run, database)
        self._prunable = [unit.prunable for unit in run.units]
        self._coefficients: NDArray[np.float64] | None = None
        self._memory = LossMemory()
        self.evaluations, self.seconds = 0, 0.0
        samples = run.calibration_inputs
        self._inputs = torch.split(torch.from_numpy(samples), BATCH)
        self._expected = torch.split(outputs_of(run.dense, torch.from_numpy(samples), BATCH), BATCH)

    def allocate(self, table: LatencyTable, budget_s: float, number: int, _: Task | None = None) -> Proposal:
        """Their whole search in the first round; later rounds, for corrected tables, go on from its coefficients."""
        start = time.perf_counter()
        rows = [row if prunable else row[:1] for row, prunable in zip(table.costs(), self._prunable, strict=True)]
        rng = np.random.default_rng([self._run.config.seed, number])
        knobs = Knobs(memory=self._memory)
        if self._coefficients is not None:
            starts = (self._coefficients,)
            knobs = Knobs(0, extra_starts=starts, max_evaluations=LATER_EVALUATIONS, memory=self._memory)
        found = search(quadratic(rows), rows, budget_s - table.fixed_s, self._losses, rng, knobs)
        self._coefficients = found.coefficients
        self.evaluations += len(found.trace)
        self.seconds += time.perf_counter() - start
        return Proposal(tuple(found.choice.tolist()), found.loss)

    def masks(self, choice: Choice) -> dict[str, NDArray[np.bool_]]:
        """Unit → where its weights stay."""
        network = self._stitched(choice)
        return {
            unit.name: network.get_submodule(unit.name).get_parameter("weight").detach().numpy() != 0
            for unit, index in zip(self._run.units, choice, strict=True)
            if index > 0
        }

    def _losses(self, plans: Sequence[Plan], limit: float, share: float = 1.0) -> list[float]:  # noqa: ARG002
        return [self._loss(plan) for plan in plans]

    def _loss(self, plan: Plan) -> float:
        network, total = self._stitched(plan), 0.0
        with torch.no_grad():
            for inputs, expected in zip(self._inputs, self._expected, strict=True):
                total += float(self._run.adapter.calibration_loss(network(inputs), expected).sum())
        return total / sum(map(len, self._inputs))

    def _stitched(self, plan: Plan) -> nn.Module:
        network = copy.deepcopy(self._run.dense)
        Stitcher(network, self._database).apply(self._run.plan_of(tuple(plan)))
        return network.eval()


def global_adaprune(run: Run, database: Database, choice: Choice, passes: int = GLOBAL_PASSES) -> nn.Module:
    """Their correction after training: Adam on all parameters, then batch norm re-estimated as their OBC code does."""
    network, plan = copy.deepcopy(run.dense), run.plan_of(choice)
    Stitcher(network, database).apply(plan)
    layers, masks = [unit.name for unit in run.units], nonzero_masks(network, compressed_layers(run, plan))
    optimiser = torch.optim.Adam(network.parameters(), lr=GLOBAL_LEARNING_RATE)
    batches = torch.split(torch.from_numpy(run.calibration_inputs), run.adapter.recipe.training_batch)
    with captured(network, layers) as ours, captured(run.dense, layers) as theirs:
        for _ in range(passes):
            for batch in batches:
                with torch.no_grad():
                    run.dense(batch)
                network(batch)
                optimiser.zero_grad()
                block_error(ours, theirs, None).backward()
                optimiser.step()
                apply_masks(network, masks)
    reestimate_batch_norm(network, batches)
    return network

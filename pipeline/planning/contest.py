"""`--allocator best`: plans of several allocators, corrected alike; the one nearest to the dense network is taken.

A search judges stitched networks, and correction mends some plans better than others. So the search's plan meets plain
ones of the same measured speedup once all are corrected, on training samples that nothing has learned from.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from calibration.errors import DataError
from pipeline.context import Run
from pipeline.models.inference import in_channels_last
from pipeline.planning.closed_loop import LoopResult
from pipeline.planning.plain_plans import plain_allocators, solve_plainly
from pipeline.planning.searching import judging_samples
from pipeline.training.corrections import Corrections
from pipeline.training.recovery import in_int8
from profilers.latency_table import Choice
from targets.errors import ArtifactError, RuntimeMissingError, SpeedupError

BEST = "best"
SEARCH = "spdy"
"""The allocator that `BEST` searches with."""
MORE = 2
"""Times as many samples as a search judges by: here there are few plans to judge, and they are near each other."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One allocator's plan.

    Args:
        allocator: that found it.
        found: the plan, and how its measured speedup became the requested one.
        loss: mean over the judging samples, of the corrected network.
    """

    allocator: str
    found: LoopResult
    loss: float

    def to_json(self) -> dict[str, Any]:
        """Plain data for the plan's file."""
        return {
            "allocator": self.allocator,
            "choice": list(self.found.choice),
            "measured_speedup": self.found.measured_speedup,
            "loss": self.loss,
        }


def hold_contest(run: Run, searched: LoopResult, speedup: float, say: Callable[[str], None]) -> list[Entry]:
    """The search's plan and its rivals, the nearest to the dense network first.

    Args:
        searched: what the search found.
        speedup: that it aimed at.
        say: told what comes of it.
    """
    corrections = Corrections(run)
    entries = [Entry(SEARCH, searched, _judged(run, corrections, searched.choice))]
    for allocator in plain_allocators(run):
        try:
            entries.append(_rival(run, corrections, allocator, searched, speedup))
        except (SpeedupError, RuntimeMissingError, ArtifactError, DataError) as error:  # the search's plan is there
            say(f"{allocator}: {str(error).splitlines()[0]}")
    for entry in entries:
        say(f"{entry.allocator}, measured {entry.found.measured_speedup:.2f}x: corrected, loss {entry.loss:.4f}")
    least = min(speedup, searched.measured_speedup)  # what is slower is nearer, but not what was asked for
    return sorted(entries, key=lambda entry: (entry.found.measured_speedup < least, entry.loss))


def _rival(run: Run, corrections: Corrections, allocator: str, searched: LoopResult, speedup: float) -> Entry:
    found = solve_plainly(run, allocator, searched.table, speedup, lambda _: None)
    loss = _judged(run, corrections, found.choice)
    if not math.isfinite(loss):
        raise ArtifactError("the corrected network's loss is not finite")
    return Entry(allocator, found, loss)


def _judged(run: Run, corrections: Corrections, choice: Choice) -> float:
    """Mean loss of the corrected plan against the dense network."""
    plan = run.plan_of(choice)
    return mean_loss(run, in_int8(run, corrections.network(choice), plan))


def mean_loss(run: Run, network: nn.Module) -> float:
    """Mean loss of a network's outputs against the dense network's, on samples that nothing has learned from."""
    samples = run.judging_samples(MORE * judging_samples(run))
    losses: list[torch.Tensor] = []
    with torch.no_grad():
        for batch in samples.batches(run.adapter.recipe.inference_batch):
            inputs = in_channels_last(batch)
            losses.append(run.adapter.calibration_loss(network(inputs), run.dense(inputs)))
    return float(torch.cat(losses).mean())

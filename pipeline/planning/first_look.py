"""A first look at how fast a network can become, in seconds, before minutes go into a latency table."""

import tempfile
from pathlib import Path

import numpy as np

from pipeline.context import Run
from profilers.latency_table import Choice, LatencyTable, PlanMeasurement
from profilers.measure import Candidate, Effort, Measurement
from profilers.table_fit import fit_latency_table
from targets.errors import RuntimeMissingError

SPARSITIES = (0.9, 0.95, 1.0)
"""Of the plans that are looked at; 1 stands for the sparsest level that there is."""
EFFORT = Effort(warmups=2, rounds=8, seconds=0.5, patience_s=1.0)
MIXED = 1.25
"""By how much a mix of levels, dense among them, may be faster than all units at one level."""


def first_look(run: Run) -> LatencyTable | None:
    """Times sparse uniform plans once, in one process; what that says of the network if the request is out of reach.

    Returns:
        None where the request may be within reach, so that a table is worth its time.
    """
    plans = _measured(run)
    fastest = max(1 / plan.relative for plan in plans)
    if fastest * MIXED >= run.goal:
        return None
    dense_samples_s = tuple(s for plan in plans for s in plan.reference_s)
    plans.append(PlanMeasurement((0,) * len(run.units), 1.0, 1.0, "anchor", dense_samples_s, dense_samples_s))
    dense_s = float(np.median(dense_samples_s))
    return fit_latency_table(
        run.table_units, run.levels, dense_s, plans, host_id=run.host.id, target=run.bench.target.to_json()
    )


def _measured(run: Run) -> list[PlanMeasurement]:
    wanted = {min(range(1, len(run.levels)), key=lambda i: abs(run.levels[i].amount - aim)) for aim in SPARSITIES}
    choices = [tuple(level if unit.prunable else 0 for unit in run.units) for level in sorted(wanted)]
    with tempfile.TemporaryDirectory(dir=run.folder.path, prefix="plans-") as folder:
        groups = []
        for number, choice in enumerate(choices):
            path = Path(folder, f"{number}.onnx")
            run.patcher.write(run.plan_of(choice), path)
            groups.append([Candidate(f"uniform plan {number}", path)])
        measured = [result for (result,) in run.bench.measure(run.dense_candidate, groups, effort=EFFORT)]
    plans = [_plan(choice, result) for choice, result in zip(choices, measured, strict=True) if not result.error]
    if not plans:
        raise RuntimeMissingError(f"The runtime failed on every sparse network: {measured[0].error}")
    return plans


def _plan(choice: Choice, measured: Measurement) -> PlanMeasurement:
    return PlanMeasurement(choice, 1 / measured.speedup, 1.0, "anchor", measured.samples_s, measured.reference_s)

"""What a model costs where it is deployed alone: percentiles, loading, the first run, memory, energy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from profilers.measure import AloneMeasurement, Bench, Candidate


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """Of one model in processes of its own; ratios of models come from runs taken in turns, not from these.

    Args:
        first_inference_s: seconds of the first run of a fresh process, median over processes.
        compile_s: seconds of loading and compiling, median over processes.
        peak_rss_bytes: most memory of a process, interpreter and runtime included.
        energy_j: joules of the whole CPU package a run, None where RAPL cannot be read.
        samples: runs behind the percentiles.
    """

    p50_s: float
    p90_s: float
    p99_s: float
    first_inference_s: float
    compile_s: float
    peak_rss_bytes: int
    energy_j: float | None
    samples: int

    def to_json(self) -> dict[str, Any]:
        """Plain data; what was not measured is absent."""
        return {name: value for name, value in asdict(self).items() if value is not None}


VISITS, VISIT_S = 3, 1.0
"""Processes of every model, and how long each runs."""


def measure_deployment(bench: Bench, candidates: Sequence[Candidate]) -> dict[str, DeploymentFacts]:
    """Label → facts; the models take turns by process, several visits each.

    Raises:
        RuntimeMissingError: a model does not run.
        UnreachableError: the device went away.
    """
    found: dict[str, list[AloneMeasurement]] = {candidate.label: [] for candidate in candidates}
    for _ in range(VISITS):
        for candidate in candidates:
            found[candidate.label].append(bench.alone(candidate, seconds=VISIT_S))
    return {label: summarise(measured) for label, measured in found.items()}


def summarise(measured: Sequence[AloneMeasurement]) -> DeploymentFacts:
    """Facts of one model from its processes."""
    samples_s = np.concatenate([process.samples_s for process in measured])
    p50, p90, p99 = np.quantile(samples_s, (0.5, 0.9, 0.99)).tolist()
    energies = [p.machine["energy_j"] / len(p.samples_s) for p in measured if "energy_j" in p.machine]
    return DeploymentFacts(
        p50,
        p90,
        p99,
        float(np.median([p.first_inference_s for p in measured])),
        float(np.median([p.compile_s for p in measured])),
        max(p.peak_rss_bytes for p in measured),
        float(np.median(energies)) if len(energies) == len(measured) else None,
        len(samples_s),
    )

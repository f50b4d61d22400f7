"""The plan as a file: unit → level, what the table says of it, and how it was found."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.models.base import Unit
from pipeline.planning.closed_loop import LoopResult
from pipeline.run_folder import read_json, write_json
from pipeline.search.spdy import TraceRow
from targets.errors import ArtifactError
from targets.levels import Level

SCHEMA = 1


def save_plan(
    path: Path,
    *,
    allocator: str,
    contest: Sequence[Mapping[str, Any]],
    requested_speedup: float,
    proxy: bool,
    found: LoopResult,
    units: Sequence[Unit],
    levels: Sequence[Level],
    errors: NDArray[np.float64],
    trace: Sequence[TraceRow],
    coefficients: NDArray[np.float64] | None,
    seconds: float,
    effort: Mapping[str, float],
) -> None:
    """Write the plan with everything that a reader of it may ask for.

    Args:
        contest: other allocators' plans among which this one was the nearest to the dense network, itself first.
        proxy: it was measured on another host than it is meant for.
        errors: [units, levels] relative reconstruction errors.
        coefficients: [units] sensitivities that the search learned.
        seconds: that the search took, measurements of its plans included.
        effort: `Searcher.effort`.
    """
    write_json(
        path,
        {
            "schema": SCHEMA,
            "allocator": allocator,
            "contest": list(contest),
            "requested_speedup": requested_speedup,
            "proxy": proxy,
            "predicted_speedup": found.predicted_speedup,
            "measured_speedup": found.measured_speedup,
            "loss": found.loss,
            "choice": list(found.choice),
            "coefficients": None if coefficients is None else coefficients.tolist(),
            "units": _unit_rows(found, units, levels, errors),
            "rounds": _round_rows(found),
            "search": {
                "evaluations": len(trace),
                "seconds": seconds,
                "effort": dict(effort),
                "trace": [list(row) for row in trace],
            },
        },
    )


def _unit_rows(
    found: LoopResult, units: Sequence[Unit], levels: Sequence[Level], errors: NDArray[np.float64]
) -> list[dict[str, Any]]:
    seconds = found.table.seconds
    return [
        {
            "name": unit.name,
            "kind": unit.kind,
            "shape": list(unit.shape),
            "parameters": unit.parameters,
            "prunable": unit.prunable,
            "level": {
                "family": levels[index].family,
                "amount": levels[index].amount,
                "precision": levels[index].precision,
            },
            "dense_s": float(seconds[row, 0]) if unit.prunable else None,
            "seconds": float(seconds[row, index]) if unit.prunable else None,
            "error": float(errors[row, index]),
        }
        for row, (unit, index) in enumerate(zip(units, found.choice, strict=True))
    ]


def _round_rows(found: LoopResult) -> list[dict[str, Any]]:
    return [
        {
            "round": turn.number + 1,
            "loss": turn.loss,
            "predicted_speedup": turn.predicted_speedup,
            "measured_speedup": turn.measured_speedup,
        }
        for turn in found.rounds
    ]


def load_plan(path: Path, units: Sequence[Unit]) -> tuple[dict[str, Level], dict[str, Any]]:
    """Unit → level, and the whole record.

    Raises:
        ArtifactError: the file is broken, or the plan is for other units.
    """
    record: dict[str, Any] = read_json(path)
    try:
        plan = {row["name"]: Level(**row["level"]) for row in record["units"]}
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{path} is not a plan ({error}). Search again.") from error
    if set(plan) != {unit.name for unit in units}:
        raise ArtifactError(f"{path} is a plan for another network. Search again.")
    return plan, record


def coefficients_of(record: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """[units] sensitivities that the plan's search learned, where it did."""
    return None if record["coefficients"] is None else np.array(record["coefficients"])


def planned_sparsity(plan: Mapping[str, Level], units: Sequence[Unit]) -> float:
    """Fraction of zeros over the weights of all units."""
    zeros = sum(unit.parameters * plan[unit.name].amount for unit in units)
    return zeros / sum(unit.parameters for unit in units)

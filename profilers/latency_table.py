"""The latency table: a model of a network's latency, fitted to measured whole-network latencies.

Per-layer counters mislead where a runtime fuses layers, and a plan timed minutes after another one differs by more
than the plans do. So every measurement is a ratio to the dense network taken in turns with it, and the table is what
explains these ratios best: one time for everything that no level changes, one monotone curve over density for every
group of units of the same shape, one dense time a group, and one cost for every border between dense and sparse units.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from targets.errors import ArtifactError
from targets.levels import DENSE, Level

SCHEMA = 1
KNOTS = (0.0, 0.03, 0.08, 0.16, 0.3, 0.6)
SMOOTHING = (0.003, 0.01, 0.03, 0.1)
REWEIGHTINGS = 4

Choice = tuple[int, ...]
"""One level a unit, as positions in the table's levels."""


@dataclass(frozen=True, slots=True)
class TableUnit:
    """A unit as the table sees it.

    Args:
        group: units of the same group share a curve.
        work: multiply-accumulates of one sample, for what no measurement tells apart.
        prunable: units that stay dense are part of the fixed time.
    """

    name: str
    group: str
    work: float
    prunable: bool


@dataclass(frozen=True, slots=True)
class PlanMeasurement:
    """The measured latency of one plan, as a fraction of the dense network's in the same rounds.

    Args:
        choice: level of every unit.
        relative: median latency over the dense network's median.
        weight: how much the fit trusts it.
        kind: why it was measured: ``anchor``, ``random``, ``proposed``, ``solved``, ``neighbour``, ``fresh``.
    """

    choice: Choice
    relative: float
    weight: float = 1.0
    kind: str = "random"
    samples_s: tuple[float, ...] = ()
    reference_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class FitError:
    """Relative errors |predicted - measured| / measured of plans that the fit had not seen."""

    median: float
    mean: float
    worst: float
    n: int


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Seconds of every unit at every level inside the running network, and of everything else.

    Args:
        seconds: [units, levels]; rows of units that cannot be pruned are zero, they are part of ``fixed_s``.
        fixed_s: seconds that no level changes.
        border_s: seconds of every border between a dense and a sparse unit in execution order.
        dense_s: measured latency of the dense network.
        fit_error: cross-validated.
        smoothing: the fit's ridge, chosen by cross-validation.
        host_id: fingerprint of the host that was measured; a table serves no other one.
    """

    units: tuple[TableUnit, ...]
    levels: tuple[Level, ...]
    seconds: NDArray[np.float64]
    fixed_s: float
    border_s: float
    dense_s: float
    fit_error: FitError
    smoothing: float
    measurements: tuple[PlanMeasurement, ...]
    host_id: str
    target: Mapping[str, Any]

    def predict(self, choice: Choice) -> float:
        """Predicted seconds of a plan."""
        units = self.seconds[np.arange(len(self.units)), list(choice)].sum()
        return float(self.fixed_s + units + self.border_s * count_borders(self.units, choice))

    def speedup(self, choice: Choice) -> float:
        """Predicted speedup over the dense network."""
        return self.dense_s / self.predict(choice)

    def costs(self) -> NDArray[np.float64]:
        """[units, levels] seconds for a dynamic program, which knows no neighbours: a dense unit pays half a border.

        One border on average is what the plans near a solution show; the closed loop corrects the rest.
        """
        costs = self.seconds.copy()
        prunable = np.array([unit.prunable for unit in self.units])
        costs[prunable, 0] += self.border_s
        return costs

    def refit(self, measurements: Sequence[PlanMeasurement]) -> "LatencyTable":
        """The table corrected by further measurements."""
        return fit_latency_table(
            self.units,
            self.levels,
            self.dense_s,
            (*self.measurements, *measurements),
            host_id=self.host_id,
            target=self.target,
        )

    def save(self, path: Path) -> None:
        """Write the table as JSON, whole or not at all."""
        data = {
            "schema": SCHEMA,
            "units": [asdict(unit) for unit in self.units],
            "levels": [level.key for level in self.levels],
            "seconds": self.seconds.tolist(),
            **{name: getattr(self, name) for name in ("fixed_s", "border_s", "dense_s", "smoothing", "host_id")},
            "target": dict(self.target),
            "fit_error": asdict(self.fit_error),
            "measurements": [
                {
                    **asdict(plan),
                    "label": plan.kind,
                    "predicted_s": self.predict(plan.choice),
                    "measured_s": plan.relative * self.dense_s,
                }
                for plan in self.measurements
            ],
        }
        part = path.with_suffix(".part")
        part.write_text(json.dumps(data))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "LatencyTable":
        """Read a table.

        Raises:
            ArtifactError: the file is missing, broken or of another version.
        """
        try:
            data = json.loads(path.read_text())
            if data["schema"] != SCHEMA:
                raise ArtifactError(f"{path} has schema {data['schema']}; this version reads {SCHEMA}. Profile again.")
            return cls(
                units=tuple(TableUnit(**unit) for unit in data["units"]),
                levels=tuple(Level.parse(key) for key in data["levels"]),
                seconds=np.array(data["seconds"], np.float64),
                fixed_s=data["fixed_s"],
                border_s=data["border_s"],
                dense_s=data["dense_s"],
                fit_error=FitError(**data["fit_error"]),
                smoothing=data["smoothing"],
                measurements=tuple(_plan_measurement(row) for row in data["measurements"]),
                host_id=data["host_id"],
                target=data["target"],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is not a latency table ({error}). Delete it and profile again.") from error


def _plan_measurement(row: Mapping[str, Any]) -> PlanMeasurement:
    return PlanMeasurement(
        tuple(row["choice"]),
        row["relative"],
        row["weight"],
        row["kind"],
        tuple(row["samples_s"]),
        tuple(row["reference_s"]),
    )


def count_borders(units: Sequence[TableUnit], choice: Choice) -> int:
    """Changes between dense and sparse along the prunable units in execution order."""
    dense = [index == 0 for unit, index in zip(units, choice, strict=True) if unit.prunable]
    return sum(left != right for left, right in pairwise(dense))


def fit_latency_table(
    units: Sequence[TableUnit],
    levels: Sequence[Level],
    dense_s: float,
    measurements: Sequence[PlanMeasurement],
    *,
    host_id: str,
    target: Mapping[str, Any],
    folds: int = 8,
) -> LatencyTable:
    """Fit a table to measured plans by non-negative least squares on relative errors.

    The ridge, which pulls the slopes of a curve's pieces together, is the one with the lowest cross-validated error.

    Args:
        levels: the first is dense.
        dense_s: seconds of the dense network.

    Raises:
        ValueError: no plan was measured, or the first level is not dense.
    """
    if not measurements or levels[0] != DENSE:
        raise ValueError("a table needs measured plans and a first level that is dense")
    design = _Design(tuple(units), tuple(levels))
    rows = np.stack([design.row(plan.choice) for plan in measurements])
    relative = np.array([plan.relative for plan in measurements])
    weights = np.array([plan.weight for plan in measurements])
    scored = [
        (smoothing, _cross_validate(design, rows, relative, weights, smoothing, folds)) for smoothing in SMOOTHING
    ]
    smoothing, errors = min(scored, key=lambda pair: float(np.mean(pair[1] * weights) / np.mean(weights)))
    solution = design.solve(rows, relative, weights, smoothing)
    return LatencyTable(
        tuple(units),
        tuple(levels),
        design.seconds(solution) * dense_s,
        float(solution[0] * dense_s),
        float(solution[1] * dense_s),
        dense_s,
        FitError(float(np.median(errors)), float(errors.mean()), float(errors.max()), len(errors)),
        smoothing,
        tuple(measurements),
        host_id,
        target,
    )


def _cross_validate(
    design: "_Design",
    rows: NDArray[np.float64],
    relative: NDArray[np.float64],
    weights: NDArray[np.float64],
    smoothing: float,
    folds: int,
) -> NDArray[np.float64]:
    """Relative errors of every plan, predicted by a fit to the other folds."""
    fold = np.random.default_rng(0).permutation(len(rows)) % min(folds, len(rows))
    errors = np.zeros(len(rows))
    for held_out in range(int(fold.max()) + 1):
        seen = fold != held_out
        if not seen.any():
            continue
        solution = design.solve(rows[seen], relative[seen], weights[seen], smoothing)
        errors[~seen] = np.abs(rows[~seen] @ solution - relative[~seen]) / relative[~seen]
    return errors


class _Design:
    """The fit's unknowns: fixed time, border time, then for every group a dense time, an offset and curve slopes.

    A unit at density d costs offset + sum_k slope_k * |[knot_k, knot_{k+1}] below d|; slopes >= 0 make it monotone.
    The times are fractions of the dense network's. Units of one group share the unknowns.
    """

    def __init__(self, units: tuple[TableUnit, ...], levels: tuple[Level, ...]) -> None:
        self.units = units
        prunable = [unit for unit in units if unit.prunable]
        self.groups = list(dict.fromkeys(unit.group for unit in prunable))
        density = np.array([level.density for level in levels])
        edges = np.array([*KNOTS, 1.0])
        pieces = np.clip(density[:, None], edges[:-1], edges[1:]) - edges[:-1]
        sparse = np.hstack([np.zeros((len(levels), 1)), np.ones((len(levels), 1)), pieces])
        dense = np.zeros(sparse.shape[1])
        dense[0] = 1.0
        self.curves = np.where((np.arange(len(levels)) == 0)[:, None], dense, sparse)
        self.width: int = self.curves.shape[1]
        self.share = {group: next(u.work for u in prunable if u.group == group) for group in self.groups}
        total = sum(unit.work for unit in units) or 1.0
        self.share = {group: work / total for group, work in self.share.items()}

    def _start(self, group: str) -> int:
        return 2 + self.groups.index(group) * self.width

    def row(self, choice: Choice) -> NDArray[np.float64]:
        """The unknowns' multipliers in a plan's latency."""
        row = np.zeros(2 + len(self.groups) * self.width)
        row[0], row[1] = 1.0, count_borders(self.units, choice)
        for unit, index in zip(self.units, choice, strict=True):
            if unit.prunable:
                start = self._start(unit.group)
                row[start : start + self.width] += self.curves[index]
        return row

    def solve(
        self,
        rows: NDArray[np.float64],
        relative: NDArray[np.float64],
        weights: NDArray[np.float64],
        smoothing: float,
    ) -> NDArray[np.float64]:
        """Non-negative unknowns with the least weighted relative error, and a ridge on the curves' bends.

        The error is squared near zero and linear beyond (Huber 1964, by reweighting), so that a measurement that a
        neighbour disturbed does not bend the table.
        """
        robust = np.ones(len(rows))
        for _ in range(REWEIGHTINGS):
            solution = self._solve_squares(rows, relative, weights * robust, smoothing)
            errors = np.abs(rows @ solution / relative - 1)
            limit = 1.345 * max(1.4826 * float(np.median(errors)), 1e-4)
            robust = np.minimum(1.0, limit / np.maximum(errors, 1e-12))
        return solution

    def _solve_squares(
        self,
        rows: NDArray[np.float64],
        relative: NDArray[np.float64],
        weights: NDArray[np.float64],
        smoothing: float,
    ) -> NDArray[np.float64]:
        scale = np.sqrt(weights) / relative
        ridge, aim = self._ridge()
        strength = smoothing * np.sqrt(len(rows))
        matrix = np.vstack([rows * scale[:, None], ridge * strength])
        solution, _ = nnls(matrix, np.concatenate([relative * scale, aim * strength]), maxiter=50 * matrix.shape[1])
        return np.asarray(solution, np.float64)

    def _ridge(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Rows that ask for straight curves without offset, and for dense times in proportion to the work."""
        rows, aim = [], []
        for group in self.groups:
            start, share = self._start(group), self.share[group]
            slopes = range(start + 2, start + self.width)
            for left, right in pairwise(slopes):
                rows.append({left: 1.0, right: -1.0})
                aim.append(0.0)
            rows.append({start + 1: 3.0})
            aim.append(0.0)
            rows.append({start: 1.0})
            aim.append(share)
            rows.append({slopes[-1]: 0.3})
            aim.append(0.3 * share)
        matrix = np.zeros((len(rows), 2 + len(self.groups) * self.width))
        for position, entries in enumerate(rows):
            for column, value in entries.items():
                matrix[position, column] = value
        return matrix, np.array(aim)

    def seconds(self, solution: NDArray[np.float64]) -> NDArray[np.float64]:
        """[units, levels] times; zero for units that stay dense."""
        table = np.zeros((len(self.units), len(self.curves)))
        for position, unit in enumerate(self.units):
            if unit.prunable:
                start = self._start(unit.group)
                table[position] = self.curves @ solution[start : start + self.width]
        return table

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
LEAST_SHARE = 1e-3
"""Of the dense network's time: less is not believed of any plan, whatever a few noisy measurements add up to."""
INT8_SHARE = 0.4
"""Of the fp32 time: what a unit in another precision is thought to take where no measurement says."""

Choice = tuple[int, ...]
"""One level a unit, as positions in the table's levels."""


@dataclass(frozen=True, slots=True)
class TableUnit:
    """A unit as the table sees it.

    Args:
        group: units of the same group share a curve.
        work: multiply-accumulates of one sample, for what no measurement tells apart.
        prunable: units that stay dense are part of the fixed time.
        levels: positions of the levels that the unit has, dense first; none stand for all of them.
    """

    name: str
    group: str
    work: float
    prunable: bool
    levels: tuple[int, ...] = ()

    def nearest_level(self, position: int) -> int:
        """Of the levels that the unit has, the one nearest to ``position``; 0 where it stays dense."""
        if not self.prunable:
            return 0
        return min(self.levels, key=lambda own: abs(own - position)) if self.levels else position


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
        total = self.fixed_s + units + self.border_s * count_borders(self.units, self.levels, choice)
        return max(float(total), LEAST_SHARE * self.dense_s)

    def speedup(self, choice: Choice) -> float:
        """Predicted speedup over the dense network."""
        return self.dense_s / self.predict(choice)

    def costs(self) -> NDArray[np.float64]:
        """[units, levels] seconds for a dynamic program, which knows no neighbours: a unit that stays as dense ones
        are pays half a border. Infinite where a unit has no such level.

        One border on average is what the plans near a solution show; the closed loop corrects the rest.
        """
        costs = self.seconds.copy()
        prunable = np.array([unit.prunable for unit in self.units])
        like_dense = np.array([kind_of(level) == kind_of(DENSE) for level in self.levels])
        costs[np.ix_(prunable, like_dense)] += self.border_s
        return np.where(self.available(), costs, np.inf)

    def available(self) -> NDArray[np.bool_]:
        """[units, levels] True where a unit has the level; units that stay dense are not told apart."""
        found = np.zeros((len(self.units), len(self.levels)), bool)
        for row, unit in zip(found, self.units, strict=True):
            row[list(unit.levels or range(len(self.levels)))] = True
        return found

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
                units=tuple(TableUnit(**unit | {"levels": tuple(unit.get("levels", ()))}) for unit in data["units"]),
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


def kind_of(level: Level) -> tuple[bool, str]:
    """What decides whether a runtime treats neighbours alike: dense or sparse kernels, and the precision."""
    return level.family == "unstructured", level.precision


def count_borders(units: Sequence[TableUnit], levels: Sequence[Level], choice: Choice) -> int:
    """Changes between dense and sparse, or between precisions, along the prunable units in execution order."""
    kinds = [kind_of(levels[index]) for unit, index in zip(units, choice, strict=True) if unit.prunable]
    return sum(left != right for left, right in pairwise(kinds))


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
    """The fit's unknowns: fixed time, border time, then for every group its precisions and families, one by one.

    Weights that are all there cost one time a precision. Those of a family cost, at density d, an offset and
    sum_k slope_k * |[knot_k, knot_{k+1}] below d|; slopes >= 0 make it monotone. The times are fractions of the dense
    network's. Units of one group share the unknowns.
    """

    def __init__(self, units: tuple[TableUnit, ...], levels: tuple[Level, ...]) -> None:
        self.units, self.levels = units, levels
        prunable = [unit for unit in units if unit.prunable]
        self.groups = list(dict.fromkeys(unit.group for unit in prunable))
        self.kinds = dict.fromkeys((level.family, level.precision) for level in levels)
        self.edges = np.array([*KNOTS, 1.0])
        self.parts: dict[tuple[str, str], slice] = {}
        self.width = 0
        for kind in self.kinds:
            size = 1 if kind[0] == "dense" else 1 + len(KNOTS)
            self.parts[kind] = slice(self.width, self.width + size)
            self.width += size
        self.curves = np.stack([self._curve(level) for level in levels])
        self.share = {group: next(u.work for u in prunable if u.group == group) for group in self.groups}
        total = sum(unit.work for unit in units) or 1.0
        self.share = {group: work / total for group, work in self.share.items()}

    def _curve(self, level: Level) -> NDArray[np.float64]:
        """What a unit at a level multiplies its group's unknowns with."""
        curve = np.zeros(self.width)
        pieces = np.clip(level.density, self.edges[:-1], self.edges[1:]) - self.edges[:-1]
        curve[self.parts[level.family, level.precision]] = 1.0 if level.family == "dense" else [1.0, *pieces]
        return curve

    def _start(self, group: str) -> int:
        return 2 + self.groups.index(group) * self.width

    def row(self, choice: Choice) -> NDArray[np.float64]:
        """The unknowns' multipliers in a plan's latency."""
        row = np.zeros(2 + len(self.groups) * self.width)
        row[0], row[1] = 1.0, count_borders(self.units, self.levels, choice)
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
        rows: list[dict[int, float]] = []
        aim: list[float] = []
        for group in self.groups:
            start = self._start(group)
            for (family, precision), part in self.parts.items():
                share = self.share[group] * (1.0 if precision == "fp32" else INT8_SHARE)
                first, last = start + part.start, start + part.stop - 1
                if family == "dense":
                    rows.append({first: 1.0})
                    aim.append(share)
                    continue
                for left, right in pairwise(range(first + 1, last + 1)):
                    rows.append({left: 1.0, right: -1.0})
                    aim.append(0.0)
                rows += [{first: 3.0}, {last: 0.3}]
                aim += [0.0, 0.3 * share]
                if family == "channel":  # nothing gone is the dense unit itself, by the same kernel
                    lengths = dict(zip(range(first + 1, last + 1), np.diff(self.edges).tolist(), strict=True))
                    rows.append({first: 1.0, **lengths, start + self.parts["dense", precision].start: -1.0})
                    aim.append(0.0)
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

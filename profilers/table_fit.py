"""Fitting a latency table to measured plans: non-negative least squares on relative errors, robust to outliers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from profilers.latency_table import Choice, FitError, LatencyTable, PlanMeasurement, TableUnit, count_borders
from targets.levels import DENSE, Level

KNOTS = (0.0, 0.03, 0.08, 0.16, 0.3, 0.6)
FOLDS = 8
"""Of the cross-validation."""
SMOOTHING = (0.003, 0.01, 0.03, 0.1)
REWEIGHTINGS = 4
INT8_SHARE = 0.4
"""Of the fp32 time: what a unit in another precision is thought to take where no measurement says."""


class _Observed(NamedTuple):
    """Measured plans: the unknowns' multipliers [plans, unknowns], latencies relative to dense and weights [plans]."""

    rows: NDArray[np.float64]
    relative: NDArray[np.float64]
    weights: NDArray[np.float64]

    def only(self, chosen: NDArray[np.bool_]) -> "_Observed":
        """Some of them."""
        return _Observed(*(column[chosen] for column in self))


def fit_latency_table(
    units: Sequence[TableUnit],
    levels: Sequence[Level],
    dense_s: float,
    measurements: Sequence[PlanMeasurement],
    *,
    host_id: str,
    target: Mapping[str, Any],
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
    plans = _Observed(
        np.stack([design.row(plan.choice) for plan in measurements]),
        np.array([plan.relative for plan in measurements]),
        np.array([plan.weight for plan in measurements]),
    )
    scored = [(smoothing, _cross_validate(design, plans, smoothing)) for smoothing in SMOOTHING]
    smoothing, errors = min(scored, key=lambda pair: float(np.mean(pair[1] * plans.weights) / np.mean(plans.weights)))
    solution = design.solve(plans, smoothing)
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


def refit(table: LatencyTable, measurements: Sequence[PlanMeasurement]) -> LatencyTable:
    """The table corrected by further measurements."""
    return fit_latency_table(
        table.units,
        table.levels,
        table.dense_s,
        (*table.measurements, *measurements),
        host_id=table.host_id,
        target=table.target,
    )


def _cross_validate(design: "_Design", plans: _Observed, smoothing: float) -> NDArray[np.float64]:
    """Relative errors of every plan, predicted by a fit to the other folds."""
    count = len(plans.rows)
    fold = np.random.default_rng(0).permutation(count) % min(FOLDS, count)
    errors = np.zeros(count)
    for held_out in range(int(fold.max()) + 1):
        seen = fold != held_out
        if not seen.any():
            continue
        solution, unseen = design.solve(plans.only(seen), smoothing), plans.only(~seen)
        errors[~seen] = np.abs(unseen.rows @ solution - unseen.relative) / unseen.relative
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

    def solve(self, plans: _Observed, smoothing: float) -> NDArray[np.float64]:
        """Non-negative unknowns with the least weighted relative error, and a ridge on the curves' bends.

        The error is squared near zero and linear beyond (Huber 1964, by reweighting), so that a measurement that a
        neighbour disturbed does not bend the table.
        """
        robust = np.ones(len(plans.rows))
        for _ in range(REWEIGHTINGS):
            solution = self._solve_squares(plans._replace(weights=plans.weights * robust), smoothing)
            errors = np.abs(plans.rows @ solution / plans.relative - 1)
            limit = 1.345 * max(1.4826 * float(np.median(errors)), 1e-4)
            robust = np.minimum(1.0, limit / np.maximum(errors, 1e-12))
        return solution

    def _solve_squares(self, plans: _Observed, smoothing: float) -> NDArray[np.float64]:
        scale = np.sqrt(plans.weights) / plans.relative
        ridge, aim = self._ridge()
        strength = smoothing * np.sqrt(len(plans.rows))
        matrix = np.vstack([plans.rows * scale[:, None], ridge * strength])
        wanted = np.concatenate([plans.relative * scale, aim * strength])
        solution, _ = nnls(matrix, wanted, maxiter=50 * matrix.shape[1])
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

"""Error models: what a level costs in accuracy before the search has learned how sensitive its unit is."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

ErrorRows = Sequence[NDArray[np.float64]]
"""For every unit [levels], the error of each of its levels; infinite for a level that must not be chosen."""


def quadratic(measured: ErrorRows) -> list[NDArray[np.float64]]:
    """The error that grows with the square of a level's position in the grid: (i / (levels - 1))².

    Equation 4 of SPDY (Frantar & Alistarh, 2022) with every coefficient 1. Of the measured errors only their number
    counts, and which are infinite.
    """
    rows = []
    for row in measured:
        position = np.arange(len(row)) / max(len(row) - 1, 1)
        rows.append(np.where(np.isinf(row), np.inf, position**2))
    return rows


def measured(measured: ErrorRows) -> list[NDArray[np.float64]]:
    """The measured errors themselves."""
    return [np.asarray(row, dtype=np.float64) for row in measured]


ERROR_MODELS: dict[str, Callable[[ErrorRows], list[NDArray[np.float64]]]] = {
    "quadratic": quadratic,
    "measured": measured,
}


def forbidding_by_cost(
    errors: Sequence[ArrayLike], costs: Sequence[ArrayLike]
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Errors and costs of levels, with those that must not be chosen infinite in their costs alone.

    An infinite error times a coefficient of 0 would be NaN, an infinite cost forbids a level at every coefficient.

    Args:
        errors: for every unit [levels]; infinite for a level that must not be chosen.
        costs: of the same levels.
    """
    rows = [np.asarray(row, dtype=np.float64) for row in errors]
    allowed = [np.isfinite(row) for row in rows]
    return (
        [np.where(mask, row, 0.0) for mask, row in zip(allowed, rows, strict=True)],
        [np.where(mask, row, np.inf) for mask, row in zip(allowed, costs, strict=True)],
    )


def fitted_coefficients(model_errors: ErrorRows, measured: ErrorRows) -> NDArray[np.float64]:
    """Coefficients with which an error model comes closest to the measured errors, the largest one 1.

    A start for the search: least squares through the origin, unit by unit.

    Args:
        model_errors: the error model's errors at coefficient 1.
        measured: errors of the same units and levels; infinite ones are left out.

    Returns:
        [units] coefficients in [0, 1]; all 1 where every measured error is 0.
    """
    coefficients = np.zeros(len(measured))
    for i, (model, target) in enumerate(zip(model_errors, measured, strict=True)):
        finite = np.isfinite(model) & np.isfinite(target)
        energy = float(model[finite] @ model[finite])
        coefficients[i] = max(float(model[finite] @ target[finite]) / energy, 0.0) if energy > 0 else 0.0
    largest = coefficients.max(initial=0.0)
    return coefficients / largest if largest > 0 else np.ones(len(measured))

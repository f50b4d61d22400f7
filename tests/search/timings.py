"""Budget problems for tests and benchmarks: the SPDY authors' timing files, others like them, and exact optima."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import block_diag, csr_matrix

Rows = list[NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Timings:
    """One timing file: seconds of the dense network, of the layers listed, and of each layer [levels]."""

    base_s: float
    prunable_s: float
    layers: dict[str, NDArray[np.float64]]

    def costs(self, dense_layers: tuple[str, ...]) -> Rows:
        """Seconds of every layer; those of ``dense_layers`` have only their dense level, and are charged."""
        return [row[:1] if name in dense_layers else row for name, row in self.layers.items()]

    def budget(self, speedup: float) -> float:
        """Seconds that the listed layers may take for the whole network to be ``speedup`` times faster."""
        return self.base_s / speedup - (self.base_s - self.prunable_s)


def read_timings(path: Path) -> Timings:
    """Read a file of the SPDY authors: ``base`` and ``prunable`` seconds, then names with ``seconds level`` lines."""
    _, base, _, prunable, *lines = path.read_text().splitlines()
    rows: dict[str, list[float]] = {}
    name = ""
    for line in lines:
        seconds, _, level = line.partition(" ")
        if level:
            rows[name].append(float(seconds))
        else:
            name = line
            rows[name] = []
    return Timings(float(base), float(prunable), {name: np.array(row) for name, row in rows.items()})


def quadratic(costs: Rows) -> Rows:
    """Equation 4 of SPDY with every coefficient 1."""
    return [(np.arange(len(row)) / max(len(row) - 1, 1)) ** 2 for row in costs]


def generated_timings(layers: int, levels: int, rng: np.random.Generator) -> Rows:
    """Layers like those of the authors' files: noisy, not monotone, often slower than dense at low sparsity."""
    density = np.append(1.0, np.geomspace(0.6, 0.01, levels - 1))
    rows = []
    for _ in range(layers):
        dense_s = rng.lognormal(-5.5, 0.8)
        overhead, floor = rng.uniform(0.9, 1.8), rng.uniform(0.02, 0.5)
        seconds = dense_s * np.maximum(density**0.7 * overhead, floor) * rng.lognormal(0, 0.03, levels)
        rows.append(np.round(np.append(dense_s, seconds[1:]), 6))
    return rows


def milp_optimum(errors: Rows, costs: Rows, budget: float) -> float:
    """The least error within the budget, by scipy's branch and bound."""
    one_each = block_diag([np.ones((1, len(row))) for row in costs], format="csr")
    result = milp(
        np.concatenate(errors),
        integrality=np.ones(one_each.shape[1]),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(csr_matrix(np.concatenate(costs)), ub=budget),
        ],
        options={"mip_rel_gap": 1e-7, "time_limit": 240},
    )
    assert result.success, result.message
    return float(result.fun)

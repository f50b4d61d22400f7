"""The latency table: a model of a network's latency, fitted to measured whole-network latencies.

Per-layer counters mislead where a runtime fuses layers, and a plan timed minutes after another one differs by more than
the plans do. So every measurement is a ratio to the dense network, by way of a reference plan that takes turns with it
(docs/decisions/0012), and the table is what explains these ratios best (profilers/table_fit.py): one time for
everything that no level changes, one monotone curve over density for every group of units of the same shape, one dense
time a group, and one cost for every border between dense and sparse units.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import ArtifactError
from targets.files import write_atomically
from targets.levels import DENSE, Level

SCHEMA = 1
LEAST_SHARE = 1e-3
"""Of the dense network's time: less is not believed of any plan, whatever a few noisy measurements add up to."""

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
    """The measured latency of one plan, as a fraction of the dense network's.

    Args:
        choice: level of every unit.
        relative: median latency over the dense network's median.
        weight: how much the fit trusts it.
        kind: why it was measured: ``anchor``, ``random``, ``proposed``, ``solved``, ``neighbour``, ``fresh``.
        samples_s: raw latencies.
        reference_s: of what took turns with it: the reference plan, or for a ``solved`` one the dense network.
        noise: standard error of ``relative`` over it, by how processes differ; 0 where that is not known.
    """

    choice: Choice
    relative: float
    weight: float = 1.0
    kind: str = "random"
    samples_s: tuple[float, ...] = ()
    reference_s: tuple[float, ...] = ()
    noise: float = 0.0


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

    def charged_s(self, choice: Choice) -> float:
        """Seconds that a dynamic program with `costs` takes a plan for."""
        costs = self.costs()[np.arange(len(self.units)), list(choice)]
        return max(float(self.fixed_s + costs.sum()), LEAST_SHARE * self.dense_s)

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
        write_atomically(path, json.dumps(data).encode())

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
        row.get("noise", 0.0),
    )


def kind_of(level: Level) -> tuple[bool, str]:
    """What decides whether a runtime treats neighbours alike: dense or sparse kernels, and the precision."""
    return level.family == "unstructured", level.precision


def count_borders(units: Sequence[TableUnit], levels: Sequence[Level], choice: Choice) -> int:
    """Changes between dense and sparse, or between precisions, along the prunable units in execution order."""
    kinds = [kind_of(levels[index]) for unit, index in zip(units, choice, strict=True) if unit.prunable]
    return sum(left != right for left, right in pairwise(kinds))

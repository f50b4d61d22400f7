"""The capability probe: what each runtime on this CPU gains from each family at all, on synthetic layers."""

import json
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from profilers.measure import Bench, Candidate, Effort
from profilers.probe_models import Files, write_probe_models
from targets.errors import ArtifactError, RuntimeMissingError
from targets.files import write_atomically
from targets.registry import RuntimeInfo
from targets.target import Target

SCHEMA = 1
PROMISED_FROM = {"unstructured": 0.9, "channel": 0.5, "int8": 0.5}
"""Family → the smallest amount whose gain is part of what it promises."""
GAINS_FROM = 1.15
"""A runtime that promises less gains nothing worth a search."""
GLANCE = Effort(warmups=3, rounds=30, seconds=0.25, patience_s=0.25, timeout_s=120)
"""Of an operation: a fraction of a second is enough to tell a gain of 15%."""
SECOND_LOOK = Effort(warmups=3, rounds=30, seconds=1.5, patience_s=5.0, timeout_s=120)
"""Before a runtime whose families seem to gain nothing is given up: neighbours or one crash may have made it so."""


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One synthetic operation with a share of a family removed, against itself in whole in the same runtime."""

    operation: str
    sparsity: float
    latency_s: float | None
    speedup: float | None
    error: str | None = None
    family: str = "unstructured"


@dataclass(frozen=True, slots=True)
class RuntimeCapability:
    """What one runtime gains from its families."""

    name: str
    version: str | None
    families: tuple[str, ...]
    licence_note: str
    rows: tuple[ProbeRow, ...]

    @property
    def promise(self) -> float:
        """What unstructured sparsity promises: for a runtime with sparse kernels, more than its other families."""
        return self.promise_of("unstructured")

    def promise_of(self, family: str) -> float:
        """Speedup of the operation that gains most, geometric mean over a family's larger amounts; 1 for no gain.

        The mean over several amounts steadies it; a network of convolutions need not wait for matrix products.
        """
        gains: dict[str, list[float]] = {}
        for row in self.rows if family in self.families else ():
            if row.family == family and row.speedup and row.sparsity >= PROMISED_FROM[family]:
                gains.setdefault(row.operation, []).append(float(np.log(row.speedup)))
        return max([1.0, *(float(np.exp(np.mean(logs))) for logs in gains.values())])

    @property
    def promises(self) -> dict[str, float]:
        """Family → what it promises."""
        return {family: self.promise_of(family) for family in self.families}

    @property
    def best_speedup(self) -> float:
        """The largest speedup of any operation at any sparsity."""
        return max([row.speedup for row in self.rows if row.speedup], default=1.0)

    @property
    def gaining(self) -> tuple[str, ...]:
        """Families that are worth a search here."""
        return tuple(family for family, promise in self.promises.items() if promise >= GAINS_FROM)

    @property
    def gains(self) -> bool:
        """Whether a search can be worth its while here."""
        return bool(self.gaining)

    @property
    def failures(self) -> tuple[str, ...]:
        """What went wrong, by operation and amount."""
        return tuple(f"{row.operation} at {row.sparsity:.0%}: {row.error}" for row in self.rows if row.error)


@dataclass(frozen=True, slots=True)
class Capability:
    """What every installed runtime gains on one host."""

    host_id: str
    target: dict[str, Any]
    runtimes: tuple[RuntimeCapability, ...]

    def of(self, name: str) -> RuntimeCapability:
        """The part of one runtime.

        Raises:
            ArtifactError: it was not probed.
        """
        for runtime in self.runtimes:
            if runtime.name == name:
                return runtime
        raise ArtifactError(f"capability.json says nothing about {name}; run `pipeline probe` again.")

    def best(self, families: Collection[str] | None = None) -> RuntimeCapability:
        """The runtime whose zeros promise the most; where none does, the one whose best family does.

        Args:
            families: those that count; None for all.
        """

        def rank(runtime: RuntimeCapability) -> tuple[float, float]:
            promises = {name: gain for name, gain in runtime.promises.items() if families is None or name in families}
            zeros = promises.get("unstructured", 1.0)
            return zeros if zeros >= GAINS_FROM else 1.0, max([1.0, *promises.values()])

        return max(self.runtimes, key=rank)

    def save(self, path: Path) -> None:
        """Write the capability as JSON, whole or not at all."""
        runtimes = [
            asdict(r) | {"promise": r.promise, "promises": r.promises, "best_speedup": r.best_speedup, "gains": r.gains}
            for r in self.runtimes
        ]
        data = {"schema": SCHEMA, "host_id": self.host_id, "target": self.target, "runtimes": runtimes}
        write_atomically(path, json.dumps(data, indent=1).encode())

    @classmethod
    def load(cls, path: Path) -> "Capability":
        """Read a capability.

        Raises:
            ArtifactError: the file is missing, broken or of another version.
        """
        try:
            data = json.loads(path.read_text())
            if data["schema"] != SCHEMA:
                raise ArtifactError(f"{path} has schema {data['schema']}; this version reads {SCHEMA}. Probe again.")
            return cls(data["host_id"], data["target"], tuple(_runtime(entry) for entry in data["runtimes"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{path} is not a capability file ({error}). Delete it and probe again.") from error


def _runtime(entry: dict[str, Any]) -> RuntimeCapability:
    return RuntimeCapability(
        entry["name"],
        entry["version"],
        tuple(entry["families"]),
        entry["licence_note"],
        tuple(ProbeRow(**row) for row in entry["rows"]),
    )


def probe(
    runtimes: Sequence[RuntimeInfo],
    target: Target,
    host_id: str,
    *,
    seed: int = 0,
    effort: Effort = GLANCE,
) -> Capability:
    """Time synthetic convolutions and matrix products in every runtime: at every sparsity, and by its families.

    A runtime that has families and gains from none is looked at twice, the second time for longer.
    """
    found = []
    with tempfile.TemporaryDirectory() as folder:
        models = write_probe_models(Path(folder), target.batch_size, np.random.default_rng(seed))
        for info in runtimes:
            bench = Bench(info, replace(target, runtime=info.name), effort=effort)
            capability = _probe_runtime(bench, models)
            if info.families and not capability.gains:
                capability = _probe_runtime(replace(bench, effort=SECOND_LOOK), models)
            found.append(capability)
    return Capability(host_id, target.to_json(), tuple(found))


def _probe_runtime(bench: Bench, models: dict[str, Files]) -> RuntimeCapability:
    info = bench.runtime
    rows = [
        replace(row, family=family)
        for family, operations in models.items()
        if family == "unstructured" or family in info.families
        for operation, paths in operations.items()
        for row in _probe_operation(bench, operation, paths)
    ]
    return RuntimeCapability(info.name, info.version, info.families, info.licence_note, tuple(rows))


def _probe_operation(bench: Bench, operation: str, paths: dict[float, Path]) -> list[ProbeRow]:
    """All shares of an operation in turns in one process; each alone where they do not run together."""
    reference = Candidate(f"{operation} dense", paths[0.0])
    group = [Candidate(f"{operation} {sparsity:.0%}", path) for sparsity, path in paths.items()]
    try:
        (results,) = bench.measure(reference, [group])
        if any(measured.error for measured in results):
            results = [measured for (measured,) in bench.measure(reference, [[candidate] for candidate in group])]
    except RuntimeMissingError as error:
        return [ProbeRow(operation, sparsity, None, None, str(error)) for sparsity in paths]
    return [
        ProbeRow(operation, sparsity, None, None, measured.error)
        if measured.error
        else ProbeRow(operation, sparsity, measured.latency_s, measured.speedup)
        for sparsity, measured in zip(paths, results, strict=True)
    ]

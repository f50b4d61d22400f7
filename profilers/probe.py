"""The capability probe: what each runtime on this CPU gains from sparsity at all, on synthetic layers."""

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from profilers.measure import Bench, Candidate, Effort
from targets.errors import ArtifactError, RuntimeMissingError
from targets.registry import RuntimeInfo
from targets.target import Target

SCHEMA = 1
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
GAINS_FROM = 1.15
"""A runtime that promises less gains nothing worth a search."""


@dataclass(frozen=True, slots=True)
class ProbeRow:
    """One synthetic operation at one sparsity, against itself without zeros in the same runtime."""

    operation: str
    sparsity: float
    latency_s: float | None
    speedup: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RuntimeCapability:
    """What one runtime gains from unstructured sparsity."""

    name: str
    version: str | None
    families: tuple[str, ...]
    licence_note: str
    rows: tuple[ProbeRow, ...]

    @property
    def promise(self) -> float:
        """Speedup of the operation that gains most, geometric mean over 90, 95 and 99%; 1 where nothing is gained.

        The mean over three sparsities steadies it; a network of convolutions need not wait for matrix products.
        """
        if not self.families:
            return 1.0
        gains: dict[str, list[float]] = {}
        for row in self.rows:
            if row.speedup and row.sparsity >= 0.9:
                gains.setdefault(row.operation, []).append(float(np.log(row.speedup)))
        return max([1.0, *(float(np.exp(np.mean(logs))) for logs in gains.values())])

    @property
    def best_speedup(self) -> float:
        """The largest speedup of any operation at any sparsity."""
        return max([row.speedup for row in self.rows if row.speedup], default=1.0)

    @property
    def gains(self) -> bool:
        """Whether a search can be worth its while here."""
        return self.promise >= GAINS_FROM


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

    def best(self) -> RuntimeCapability:
        """The runtime that promises the most; among equals the first."""
        return max(self.runtimes, key=lambda runtime: runtime.promise)

    def save(self, path: Path) -> None:
        """Write the capability as JSON, whole or not at all."""
        runtimes = [
            asdict(r) | {"promise": r.promise, "best_speedup": r.best_speedup, "gains": r.gains} for r in self.runtimes
        ]
        data = {"schema": SCHEMA, "host_id": self.host_id, "target": self.target, "runtimes": runtimes}
        part = path.with_suffix(".part")
        part.write_text(json.dumps(data, indent=1))
        part.replace(path)

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
    effort: Effort | None = None,
    on_runtime: Callable[[str], None] | None = None,
) -> Capability:
    """Time synthetic convolutions and matrix products at every sparsity in every runtime.

    Args:
        effort: a fraction of a second an operation is enough to tell a gain of 15%.
    """
    effort = effort or Effort(warmups=3, rounds=30, seconds=0.4, patience_s=0.5, timeout_s=120)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        models = write_probe_models(Path(folder), target.batch_size, np.random.default_rng(seed))
        for info in runtimes:
            if on_runtime:
                on_runtime(info.name)
            bench = Bench(info, replace(target, runtime=info.name), effort=effort)
            rows = [row for operation, paths in models.items() for row in _probe_operation(bench, operation, paths)]
            found.append(RuntimeCapability(info.name, info.version, info.families, info.licence_note, tuple(rows)))
    return Capability(host_id, target.to_json(), tuple(found))


def _probe_operation(bench: Bench, operation: str, paths: dict[float, Path]) -> list[ProbeRow]:
    reference = Candidate(f"{operation} dense", paths[0.0])
    groups = [[Candidate(f"{operation} {sparsity:.0%}", path)] for sparsity, path in paths.items()]
    try:
        results = bench.measure(reference, groups)
    except RuntimeMissingError as error:
        return [ProbeRow(operation, sparsity, None, None, str(error)) for sparsity in paths]
    rows = []
    for sparsity, (measured,) in zip(paths, results, strict=True):
        if measured.error:
            rows.append(ProbeRow(operation, sparsity, None, None, measured.error))
        else:
            rows.append(ProbeRow(operation, sparsity, measured.latency_s, measured.speedup))
    return rows


def write_probe_models(folder: Path, batch_size: int, rng: np.random.Generator) -> dict[str, dict[float, Path]]:
    """Chains of three equal layers with activations between, one file an operation and sparsity."""
    builders: dict[str, Callable[[Sequence[NDArray[np.float32]]], onnx.ModelProto]] = {
        "conv3x3": lambda weights: _conv_chain(weights, batch_size, 64, 14),
        "matmul": lambda weights: _matmul_chain(weights, batch_size, 32, 512),
    }
    shapes = {"conv3x3": (64, 64, 3, 3), "matmul": (512, 512)}
    files: dict[str, dict[float, Path]] = {}
    for operation, build in builders.items():
        dense = [rng.standard_normal(shapes[operation]).astype(np.float32) * 0.05 for _ in range(3)]
        files[operation] = {}
        for sparsity in SPARSITIES:
            path = folder / f"{operation}-{sparsity}.onnx"
            weights = [_prune(weight, sparsity) for weight in dense]
            onnx.save(build(weights), str(path))
            files[operation][sparsity] = path
    return files


def _prune(weight: NDArray[np.float32], sparsity: float) -> NDArray[np.float32]:
    pruned = weight.copy()
    zeros = round(sparsity * weight.size)
    if zeros:
        pruned.flat[np.argpartition(np.abs(weight).ravel(), zeros - 1)[:zeros]] = 0
    return pruned


def _conv_chain(weights: Sequence[NDArray[np.float32]], batch: int, channels: int, size: int) -> onnx.ModelProto:
    nodes, name = [], "input"
    for number, _ in enumerate(weights):
        nodes.append(helper.make_node("Conv", [name, f"w{number}"], [f"c{number}"], pads=[1] * 4, kernel_shape=[3, 3]))
        name = f"r{number}"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [name]))
    return _model(nodes, weights, [batch, channels, size, size], [batch, channels, size, size], name)


def _matmul_chain(weights: Sequence[NDArray[np.float32]], batch: int, tokens: int, width: int) -> onnx.ModelProto:
    nodes, name = [], "input"
    for number, _ in enumerate(weights):
        nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [f"c{number}"]))
        name = f"r{number}"
        nodes.append(helper.make_node("Relu", [f"c{number}"], [name]))
    return _model(nodes, weights, [batch, tokens, width], [batch, tokens, width], name)


def _model(
    nodes: list[onnx.NodeProto],
    weights: Sequence[NDArray[np.float32]],
    input_shape: list[int],
    output_shape: list[int],
    output: str,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(weight, f"w{number}") for number, weight in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)

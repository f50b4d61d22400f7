"""onnxruntime on CPUs, with all its graph optimisations."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .onnx_graph import Node, read_graph

NAME = "onnxruntime"
FAMILIES: tuple[str, ...] = ("channel", "int8")
ISA_LIMITS: dict[str, dict[str, str]] = {}  # its kernels take what the CPU has, and nothing can be set

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def versions() -> dict[str, str]:
    """Package → version of everything that computes."""
    return {package: metadata.version(package) for package in ("onnxruntime", "numpy")}


def compile(
    model_path: str, threads: int, batch_size: int, precision: str = "fp32", profile: bool = False
) -> CompiledModel:
    """Compile an ONNX file, whose batch must be dynamic or ``batch_size``."""
    if precision != "fp32":
        raise ValueError(f"onnxruntime computes fp32 models in fp32 on CPUs, not in {precision}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    folder = tempfile.mkdtemp(prefix="onnxruntime-") if profile else None
    options.enable_profiling = profile
    options.profile_file_prefix = str(Path(folder or "", "profile"))
    try:
        session = onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"])
        specs = [_spec(node, batch_size) for node in session.get_inputs()]
    except BaseException:
        _remove(folder)
        raise
    return CompiledModel(session, specs, model_path, folder)


def kernel_support(model_path: str, threads: int, batch_size: int) -> tuple[None, list[str]]:  # noqa: ARG001
    """Nothing to tell: it refuses what it cannot compute."""
    return None, []


def _spec(node: Any, batch_size: int) -> tuple[str, tuple[int, ...], str]:
    batch, *rest = node.shape
    if not all(isinstance(size, int) for size in rest):
        raise ValueError(f"input {node.name} has the shape {node.shape}: only the batch may be dynamic")
    if isinstance(batch, int) and batch != batch_size:
        raise ValueError(f"input {node.name} has the fixed batch size {batch}, not {batch_size}: export it again")
    kind = node.type[len("tensor(") : -1]
    return node.name, (batch_size, *rest), {"float": "float32", "double": "float64"}.get(kind, kind)


def _remove(folder: str | None) -> None:
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


class CompiledModel:
    """A session; while it is profiled, ``folder`` holds the profile that it writes."""

    def __init__(
        self, session: Any, specs: list[tuple[str, tuple[int, ...], str]], model_path: str, folder: str | None
    ) -> None:
        self._session = session
        self._specs = specs
        self._names = [name for name, _, _ in specs]
        self._model_path = model_path
        self._folder = folder
        self._times: dict[str, float] | None = None
        self._operations: dict[str, float] | None = None

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._folder and self._times is None:
            self._session.end_profiling()
        self._session = None
        _remove(self._folder)

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one batch of C-contiguous inputs, which are read in place."""
        feeds = dict(zip(self._names, inputs))  # noqa: B905 - Python 3.8
        outputs: list[NDArray[Any]] = self._session.run(None, feeds)
        return outputs

    def input_specs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape with the batch and numpy type name of every input."""
        return self._specs

    def layer_times(self) -> dict[str, float] | None:
        """Median seconds of every executed node, fused ones credited to their layer; ends the profiling."""
        if self._folder and self._times is None:
            samples = _node_samples(json.loads(Path(self._session.end_profiling()).read_text()))
            self._times = _layer_times(samples, read_graph(Path(self._model_path).read_bytes()))
            self._operations = _operation_times(samples)
        return self._times

    def operation_times(self) -> dict[str, float] | None:
        """Median seconds of every kind of node; ``ReorderInput`` and ``Cast`` compute nothing that was asked for."""
        self.layer_times()
        return self._operations

    def kernels(self) -> None:
        """None: it does not tell."""

    def supported_fraction(self) -> None:
        """None: onnxruntime has one set of kernels and refuses what it cannot compute."""


def _node_samples(events: list[dict[str, Any]]) -> dict[tuple[str, str], list[float]]:
    """Name and operation of an executed node → its seconds."""
    suffix = "_kernel_time"
    samples: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(suffix):
            key = event["name"][: -len(suffix)], event["args"]["op_name"]
            samples.setdefault(key, []).append(event["dur"] * 1e-6)
    return samples


def _operation_times(samples: dict[tuple[str, str], list[float]]) -> dict[str, float]:
    times: dict[str, float] = {}
    for (_, operation), seconds in samples.items():
        times[operation] = times.get(operation, 0.0) + float(np.median(seconds))
    return times


def _layer_times(samples: dict[tuple[str, str], list[float]], graph: list[Node]) -> dict[str, float]:
    by_name = {node.name: node for node in graph}
    by_output = {output: node for node in graph for output in node.outputs}
    times: dict[str, float] = {}
    for (name, operation), seconds in samples.items():
        # Nodes in the blocked layout are called after the output that they compute; others say what was fused.
        stem = re.sub(r"_nchwc$|(/\w+Fusion/?)+$", "", name)
        node = by_name.get(stem) or by_output.get(stem)
        if node and operation.endswith(_LAYERS) and node.operation not in _LAYERS:
            node = _only_layer_before(node, by_output)
        credited = node.name or node.outputs[0] if node else name
        times[credited] = times.get(credited, 0.0) + float(np.median(seconds))
    return times


def _only_layer_before(node: Node, by_output: dict[str, Node]) -> Node | None:
    """The layer whose output ``node`` post-processes, None if there are several such layers."""
    found, seen, stack = {}, set(), [node]
    while stack:
        for name in stack.pop().inputs:
            source = by_output.get(name)
            if source and source.operation in _LAYERS:
                found[name] = source
            elif source and name not in seen:
                seen.add(name)
                stack.append(source)
    return next(iter(found.values())) if len(found) == 1 else None

"""OpenVINO on CPUs, with its precision pinned: left alone, it takes bf16 wherever the CPU has it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAME = "openvino"
FAMILIES: tuple[str, ...] = ("channel", "int8")
ISA_LIMITS = {  # oneDNN's kernels heed the one, OpenVINO's own the other; avx512 is without VNNI
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "AVX2"},
    "avx512": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OV_CPU_MAX_ISA": "AVX512_CORE"},
}

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_LAYERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
_LAYER_KERNELS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def versions() -> dict[str, str]:
    """Package → version of everything that computes."""
    return {package: metadata.version(package) for package in ("openvino", "numpy")}


def compile(
    model_path: str, threads: int, batch_size: int, precision: str = "fp32", profile: bool = False
) -> CompiledModel:
    """Compile an ONNX file or an OpenVINO IR for a fixed batch size, tuned for the latency of one request."""
    if precision not in _HINTS:
        raise ValueError(f"openvino computes in {' or '.join(_HINTS)}, not in {precision}")
    import openvino

    core = openvino.Core()
    model = core.read_model(model_path)
    model.reshape({port: _with_batch(port, batch_size) for port in model.inputs})
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": profile,
    }
    compiled = core.compile_model(model, "CPU", settings)
    used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if used != _HINTS[precision]:
        raise ValueError(f"openvino computes in {used} on this CPU, not in {precision}")
    return CompiledModel(compiled, _credited_layers(model, compiled) if profile else None)


def kernel_support(model_path: str, threads: int, batch_size: int) -> tuple[None, list[str]]:  # noqa: ARG001
    """Nothing to tell: it refuses what it cannot compute."""
    return None, []


def _with_batch(port: Any, batch_size: int) -> list[int]:
    rest = list(port.partial_shape)[1:]
    if any(dimension.is_dynamic for dimension in rest):
        raise ValueError(f"input {port.any_name} has the shape {port.partial_shape}: only the batch may be dynamic")
    return [batch_size, *(dimension.get_length() for dimension in rest)]


class CompiledModel:
    """A compiled model with one request; ``credit`` maps executed nodes to layers when it is profiled."""

    def __init__(self, compiled: Any, credit: dict[str, list[str]] | None) -> None:
        self.compiled = compiled
        self._request = compiled.create_infer_request()
        self._credit = credit
        self._node_times: dict[str, list[float]] = {}
        self._kinds: dict[str, str] = {}
        self._kernels: set[str] = set()

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self._request = self.compiled = None

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one batch of C-contiguous inputs, which are read in place."""
        outputs = list(self._request.infer(list(inputs), share_inputs=True).values())
        if self._credit is not None:
            for node in self._request.get_profiling_info():
                self._node_times.setdefault(node.node_name, []).append(node.real_time.total_seconds())
                slow = f" ({node.exec_type})" if node.exec_type.startswith("ref") else ""
                self._kinds[node.node_name] = node.node_type + slow
                if node.real_time:
                    self._kernels.add(node.exec_type)
        return outputs

    def input_specs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape with the batch and numpy type name of every input."""
        return [
            (port.any_name, tuple(port.shape), np.dtype(port.element_type.to_dtype()).name)
            for port in self.compiled.inputs
        ]

    def layer_times(self) -> dict[str, float] | None:
        """Median seconds of every executed node, fused ones credited to their layer."""
        if self._credit is None:
            return None
        times: dict[str, float] = {}
        for node, seconds in self._node_times.items():
            # Nodes that were fused or optimised away never take any time.
            names = self._credit.get(node, [node]) if any(seconds) else []
            for name in names:
                times[name] = times.get(name, 0.0) + float(np.median(seconds)) / len(names)
        return times

    def operation_times(self) -> dict[str, float] | None:
        """Median seconds of every kind of node; ``Reorder`` and ``Convert`` compute nothing that the network asks.

        ``NonMaxSuppression (ref_any_FP32)`` is a kind that a reference kernel computes, which nobody made fast.
        """
        if self._credit is None:
            return None
        times: dict[str, float] = {}
        for node, seconds in self._node_times.items():
            if any(seconds):
                kind = self._kinds[node]
                times[kind] = times.get(kind, 0.0) + float(np.median(seconds))
        return times

    def kernels(self) -> list[str] | None:
        """Such as ``jit_avx2_I8``, of the nodes that took time."""
        return None if self._credit is None else sorted(self._kernels - {"undef"})

    def supported_fraction(self) -> None:
        """None: OpenVINO refuses what it cannot compute."""


def _credited_layers(model: Any, compiled: Any) -> dict[str, list[str]]:
    """Executed node → names of the layers that its time belongs to, more than one where layers were fused."""
    operations = {operation.friendly_name: operation for operation in model.get_ops()}
    credit = {}
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        fused = [name for name in info["originalLayersNames"].astype(str).split(",") if name]
        layers = [name for name in fused if name in operations and operations[name].get_type_name() in _LAYERS]
        if not layers and fused and info["layerType"].astype(str) in _LAYER_KERNELS and fused[0] in operations:
            layers = _only_layer_before(operations[fused[0]])
        credit[node.friendly_name] = [_node_name(name) for name in layers] or fused[:1] or [node.friendly_name]
    return credit


def _only_layer_before(operation: Any) -> list[str]:
    """Name of the layer whose output ``operation`` post-processes, none if there are several such layers."""
    found, seen, stack = set(), set(), [operation]
    while stack:
        for port in stack.pop().inputs():
            source = port.get_source_output().get_node()
            if source.get_type_name() in _LAYERS:
                found.add(source.friendly_name)
            elif source.friendly_name not in seen:
                seen.add(source.friendly_name)
                stack.append(source)
    return list(found) if len(found) == 1 else []


def _node_name(operation_name: str) -> str:
    """ONNX node that an operation comes from: a layer with a bias is read as two operations."""
    suffix = "/WithoutBiases"
    return operation_name[: -len(suffix)] if operation_name.endswith(suffix) else operation_name

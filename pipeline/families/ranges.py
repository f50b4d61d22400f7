"""Ranges of activations, found by running an exported graph on the calibration set."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from pipeline.exporting.graph import ExportedGraph
from pipeline.families.int8 import LARGEST_WEIGHT, LARGEST_WEIGHT_WITHOUT_VNNI, LayerRanges, Range, Ranges
from pipeline.models.base import Feeds


def largest_weight(isa: Sequence[str]) -> int:
    """Steps of a weight that the CPU multiplies without overflow."""
    return LARGEST_WEIGHT if any("vnni" in feature for feature in isa) else LARGEST_WEIGHT_WITHOUT_VNNI


def measure_ranges(path: Path, layers: Sequence[str], batches: Iterable[Feeds], largest: int) -> Ranges:
    """Smallest and largest values of what goes into every layer of a graph and comes out of it.

    Args:
        path: ONNX file of the dense network.
        layers: names of those that are in a unit.
        batches: inputs, each of the file's batch size.
        largest: see `Ranges`.
    """
    import onnxruntime

    graph = ExportedGraph(onnx.load(path))
    tensors = {layer: (graph.node(layer).input[0], graph.output(layer)) for layer in graph.layers}
    fixed = tuple(layer for layer in graph.layers if layer not in set(layers))
    names = list(dict.fromkeys(name for pair in tensors.values() for name in pair))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_with_extremes(graph, names), options, providers=["CPUExecutionProvider"])
    asked = [f"{name}.{kind}" for kind in ("min", "max") for name in names]
    found = np.stack([np.array(session.run(asked, batch), np.float64) for batch in batches])
    lows, highs = found[:, : len(names)].min(axis=0), found[:, len(names) :].max(axis=0)
    spans = {name: _with_zero(float(low), float(high)) for name, low, high in zip(names, lows, highs, strict=True)}
    return Ranges({layer: LayerRanges(spans[a], spans[b]) for layer, (a, b) in tensors.items()}, largest, fixed)


def _with_zero(low: float, high: float) -> Range:
    """The range with zero in it; of a constant, a range of no width, which says so."""
    return Range(low, high) if low == high else Range(min(low, 0.0), max(high, 0.0))


def _with_extremes(graph: ExportedGraph, names: Sequence[str]) -> bytes:
    """The graph with the extremes of some tensors as further outputs."""
    for name in names:
        for kind, operator in (("min", "ReduceMin"), ("max", "ReduceMax")):
            graph.add(helper.make_node(operator, [name], [f"{name}.{kind}"], keepdims=0))
            output = helper.make_tensor_value_info(f"{name}.{kind}", TensorProto.FLOAT, [])
            graph.model.graph.output.append(output)
    content: bytes = graph.model.SerializeToString()
    return content


def ranges_to_json(ranges: Ranges) -> dict[str, Any]:
    """What `ranges_from_json` reads."""
    return {"schema": 1, **asdict(ranges)}


def ranges_from_json(data: dict[str, Any]) -> Ranges:
    """The ranges that `ranges_to_json` wrote."""
    layers = {
        name: LayerRanges(Range(**entry["input"]), Range(**entry["output"])) for name, entry in data["layers"].items()
    }
    return Ranges(layers, data["largest_weight"], tuple(data["fixed"]))

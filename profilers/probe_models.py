"""Networks for the capability probe: chains of equal layers, in whole and with a share of a family removed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
WIDTH_CUTS = (0.0, 0.5, 0.75)
"""Shares of the channels between the layers of a chain that are removed."""
INT8_CUT = 0.75
"""Share of the bits that are removed."""
WIDTHS = {"conv3x3": 64, "matmul": 512}
SIDE, TOKENS = 14, 8
"""Of one sample: pixels a side of a convolution's input, rows of a matrix product's."""
LARGE_BATCH, SMALLER = 16, 2
"""From this batch size on both are divided: kernels have work enough, and the probe is waited for."""
LAYERS = 4
"""Of a chain: so many that taking inputs in and giving outputs back does not hide what the layers gain."""

Weights = Sequence[NDArray[np.float32]]
Files = dict[str, dict[float, Path]]
"""Operation → share removed → file."""


def write_probe_models(folder: Path, batch_size: int, rng: np.random.Generator) -> dict[str, Files]:
    """Chains with activations between, one file an operation and share removed, by family."""
    found: dict[str, Files] = {"unstructured": {}, "channel": {}, "int8": {}}
    for operation, width in WIDTHS.items():

        def write(family: str, share: float, model: onnx.ModelProto, operation: str = operation) -> None:
            path = folder / f"{operation}-{family}-{share}.onnx"
            onnx.save(model, str(path))
            shown = operation if family == "unstructured" else f"{operation}, {family}"
            found[family].setdefault(shown, {})[share] = path

        dense = _weights(operation, width, width, rng)
        for sparsity in SPARSITIES:
            write("unstructured", sparsity, _chain(operation, [_prune(w, sparsity) for w in dense], batch_size, width))
        for share in WIDTH_CUTS:
            narrow = _weights(operation, width, round(width * (1 - share)), rng)
            write("channel", share, _chain(operation, narrow, batch_size, width))
        write("int8", 0.0, _chain(operation, dense, batch_size, width))
        write("int8", INT8_CUT, _chain(operation, dense, batch_size, width, in_int8=True))
    return found


def _weights(operation: str, width: int, inner: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """Of a chain from ``width`` channels over ``inner`` ones to ``width``."""
    sizes = ((width, inner), *[(inner, inner)] * (LAYERS - 2), (inner, width))
    shapes = [(o, i, 3, 3) if operation == "conv3x3" else (i, o) for i, o in sizes]
    return [rng.standard_normal(shape).astype(np.float32) * np.float32(0.05) for shape in shapes]


def _prune(weight: NDArray[np.float32], sparsity: float) -> NDArray[np.float32]:
    pruned = weight.copy()
    zeros = round(sparsity * weight.size)
    if zeros:
        pruned.flat[np.argpartition(np.abs(weight).ravel(), zeros - 1)[:zeros]] = 0
    return pruned


def _chain(operation: str, weights: Weights, batch: int, width: int, in_int8: bool = False) -> onnx.ModelProto:
    """Layers with ReLUs between; in int8 as pairs of QuantizeLinear and DequantizeLinear around each of them."""
    tensors: dict[str, NDArray[Any]] = {f"w{number}": weight for number, weight in enumerate(weights)}
    nodes: list[onnx.NodeProto] = []
    name = "input"
    for number in range(len(weights)):
        weight = f"w{number}"
        if in_int8:
            name, weight = _quantised(nodes, tensors, name, weight)
        layer, activation = f"c{number}", f"r{number}"
        settings: dict[str, Any] = {"pads": [1] * 4, "kernel_shape": [3, 3]} if operation == "conv3x3" else {}
        kind = "Conv" if operation == "conv3x3" else "MatMul"
        nodes.append(helper.make_node(kind, [name, weight], [layer], **settings))
        nodes.append(helper.make_node("Relu", [layer], [activation]))
        name = activation
    if in_int8:
        name, _ = _quantised(nodes, tensors, name, None)
    side, tokens = (size // (SMALLER if batch >= LARGE_BATCH else 1) for size in (SIDE, TOKENS))
    shape = [batch, width, side, side] if operation == "conv3x3" else [batch, tokens, width]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, tensor) for tensor, values in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _quantised(
    nodes: list[onnx.NodeProto], tensors: dict[str, NDArray[Any]], name: str, weight: str | None
) -> tuple[str, str]:
    """Names of an activation and a weight that went through 8 bits."""
    tensors |= {"scale": np.array(0.05, np.float32), "zero": np.array(0, np.uint8)}
    tensors |= {"weight_scale": np.array(0.002, np.float32), "weight_zero": np.array(0, np.int8)}
    rounded, back = f"{name}.uint8", f"{name}.back"
    nodes.append(helper.make_node("QuantizeLinear", [name, "scale", "zero"], [rounded]))
    nodes.append(helper.make_node("DequantizeLinear", [rounded, "scale", "zero"], [back]))
    if weight is None:
        return back, ""
    tensors[weight] = np.clip(np.rint(tensors[weight] / 0.002), -127, 127).astype(np.int8)
    nodes.append(helper.make_node("DequantizeLinear", [weight, "weight_scale", "weight_zero"], [f"{weight}.back"]))
    return back, f"{weight}.back"

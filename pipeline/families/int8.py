"""int8: a precision that combines with the families, of a layer's weights and of what goes into it.

Weights are rounded to 8 bits with one symmetric scale an output channel, inputs to 8 bits with one range a tensor.
`InputQuantisers` and `rounded` give torch the arithmetic that `quantise` writes into an exported graph.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, nn

from pipeline.compression.hessians import Matrix
from pipeline.exporting.graph import ExportedGraph
from targets.errors import ConfigError

PRECISION = "int8"
STEPS = 255
LARGEST_WEIGHT = 127
LARGEST_WEIGHT_WITHOUT_VNNI = 63
"""Older CPUs add two products of 8 bits in 16 before they widen: with 7 bits in the weights nothing overflows."""


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value of a tensor on the calibration set, zero among them unless it is a constant."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """Of one step."""
        return (self.high - self.low) / STEPS

    @property
    def zero_point(self) -> int:
        """The step that stands for zero."""
        return round(-self.low / self.scale)


@dataclass(frozen=True, slots=True)
class LayerRanges:
    """Ranges of what goes into a layer and of what comes out of it, batch norm folded in."""

    input: Range
    output: Range


@dataclass(frozen=True, slots=True)
class Ranges:
    """What int8 needs to know.

    Args:
        layers: name → ranges.
        largest_weight: that the CPU's arithmetic takes.
        fixed: those of the layers that are in no unit, such as shortcuts that select channels.
    """

    layers: Mapping[str, LayerRanges]
    largest_weight: int = LARGEST_WEIGHT
    fixed: Sequence[str] = ()


def rounded(weight: Matrix, largest: int = LARGEST_WEIGHT) -> Matrix:
    """Weights [rows, d] rounded to multiples of each row's own scale."""
    scale = _weight_scale(weight, largest)[:, None]
    result: Matrix = np.rint(weight / scale) * scale
    return result


def _weight_scale(weight: NDArray[Any], largest: int) -> NDArray[Any]:
    """[rows] such that the largest weight of every row is ``largest`` steps."""
    strongest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    return np.where(strongest > 0, strongest, 1.0) / largest


class Int8Training:
    """int8 in training, straight through: passes see rounded inputs and weights, updates go to the weights themselves.

    Args:
        model: whose layers get hooks.
        layers: that compute in int8.
        ranges: of their inputs.
    """

    def __init__(self, model: nn.Module, layers: Collection[str], ranges: Ranges) -> None:
        self._model, self._layers, self._ranges = model, tuple(layers), ranges
        self._inputs = InputQuantisers(model, ranges)

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Around a forward and a backward pass."""
        weights = [self._model.get_parameter(f"{name}.weight") for name in self._layers]
        exact = [weight.detach().clone() for weight in weights]
        self._inputs.enable(self._layers)
        round_weights(self._model, self._layers, self._ranges)
        try:
            yield
        finally:
            self._inputs.enable(())
            with torch.no_grad():
                for weight, own in zip(weights, exact, strict=True):
                    weight.copy_(own)


class InputQuantisers:
    """Rounds the inputs of chosen layers as int8 does, while the network runs; gradients pass through.

    Args:
        model: whose layers get hooks.
        ranges: of the layers' inputs.
    """

    def __init__(self, model: nn.Module, ranges: Ranges) -> None:
        self._enabled: frozenset[str] = frozenset()
        for name, found in ranges.layers.items():
            if name not in ranges.fixed:
                model.get_submodule(name).register_forward_pre_hook(self._hook(name, found.input))

    def enable(self, layers: Collection[str]) -> None:
        """Round the inputs of these layers and of no others."""
        self._enabled = frozenset(layers)

    def _hook(self, name: str, span: Range) -> Callable[[nn.Module, tuple[Any, ...]], Any]:
        def quantise_input(_: nn.Module, inputs: tuple[Any, ...]) -> Any:
            return (_rounded_input(inputs[0], span), *inputs[1:]) if name in self._enabled else None

        return quantise_input


def _rounded_input(x: Tensor, span: Range) -> Tensor:
    steps = torch.clamp(torch.round(x / span.scale) + span.zero_point, 0, STEPS)
    return x + ((steps - span.zero_point) * span.scale - x).detach()


def round_network(model: nn.Module, layers: Collection[str], ranges: Ranges) -> None:
    """Give a network the arithmetic of int8 in some of its layers, in place."""
    round_weights(model, layers, ranges)
    InputQuantisers(model, ranges).enable(layers)


def round_weights(model: nn.Module, layers: Collection[str], ranges: Ranges) -> None:
    """Round the weights of some layers to what int8 keeps of them, in place."""
    for name in layers:
        weight = model.get_parameter(f"{name}.weight")
        matrix = weight.detach().double().flatten(1).cpu().numpy()
        with torch.no_grad():
            weight.copy_(torch.from_numpy(rounded(matrix, ranges.largest_weight)).reshape(weight.shape))


def quantise(graph: ExportedGraph, layers: Sequence[str], ranges: Ranges) -> None:
    """Write layers of an exported graph in int8, in place, as pairs of QuantizeLinear and DequantizeLinear.

    A tensor that a quantised layer reads is quantised for all who read it, so that residual sums are in int8 as well.
    What a quantised convolution gives is quantised, too, since onnxruntime has integer kernels for no others, unless a
    ReLU alone lies between it and the next int8 tensor. A fixed convolution follows what it reads.
    """
    writer = _Writer(graph, ranges)
    for layer in layers:
        writer.quantise_layer(layer)
    followers = [layer for layer in ranges.fixed if writer.reads_int8(layer)]
    for layer in followers:
        writer.quantise_layer(layer)
    for layer in (*layers, *followers):
        writer.quantise_output(layer)
    graph.sort()


class _Writer:
    """Adds the pairs to a graph; every tensor gets one at most."""

    def __init__(self, graph: ExportedGraph, ranges: Ranges) -> None:
        self._graph, self._ranges = graph, ranges
        self._quantised: dict[str, str] = {}

    def reads_int8(self, layer: str) -> bool:
        """Whether a layer is a convolution whose input another layer has in int8."""
        node = self._graph.node(layer)
        return node.op_type == "Conv" and node.input[0] in self._quantised.values()

    def quantise_layer(self, layer: str) -> None:
        node, found = self._graph.node(layer), self._ranges.layers[layer]
        if found.input.high == found.input.low:
            raise ConfigError(
                f"The calibration data leave the input of layer {layer} constant, which int8 cannot scale. Give more "
                "varied --data or more --calibration-samples, or leave int8 out: --families channel."
            )
        weight, scale_in = self._graph.weight(layer), np.float32(found.input.scale)
        scale = _weight_scale(weight, self._ranges.largest_weight).astype(np.float32)
        steps = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int8)
        transposed = self._graph.is_transposed(layer)
        stored = self._constant(f"{layer}.weight_int8", steps.T if transposed else steps)
        dequantised = self._dequantised(stored, scale, np.zeros(len(scale), np.int8), axis=int(transposed))
        bias = self._graph.bias_name(layer)
        node.input[0] = self._pair(node.input[0], found.input)
        node.input[1] = dequantised
        if bias and node.op_type != "MatMul":
            scales = scale * scale_in
            values = np.clip(np.rint(self._graph.values(bias) / scales), -(2**31), 2**31 - 1).astype(np.int32)
            kept = self._constant(f"{layer}.bias_int32", values)
            node.input[2] = self._dequantised(kept, scales, np.zeros(len(scales), np.int32), axis=0)

    def quantise_output(self, layer: str) -> None:
        """Of a convolution, unless a ReLU alone lies between it and the next int8 tensor."""
        node, span = self._graph.node(layer), self._ranges.layers[layer].output
        readers = self._graph.readers(node.output[0])
        through_relu = len(readers) == 1 and readers[0].op_type == "Relu" and readers[0].output[0] in self._quantised
        if node.op_type == "Conv" and not through_relu and span.high > span.low:
            self._pair(node.output[0], span)

    def _pair(self, tensor: str, span: Range) -> str:
        """Quantise a tensor for everyone who reads it; name of what they read from now on."""
        if tensor in self._quantised.values():
            return tensor
        if tensor not in self._quantised:
            readers = self._graph.readers(tensor)
            scale = self._constant(f"{tensor}.scale", np.float32(span.scale))
            zero = self._constant(f"{tensor}.zero", np.uint8(span.zero_point))
            names = [tensor, f"{tensor}.uint8", f"{tensor}.dequantised"]
            self._graph.add(helper.make_node("QuantizeLinear", [names[0], scale, zero], [names[1]], names[1]))
            self._graph.add(helper.make_node("DequantizeLinear", [names[1], scale, zero], [names[2]], names[2]))
            self._quantised[tensor] = names[2]
            for reader in readers:
                reader.input[:] = [names[2] if name == tensor else name for name in reader.input]
        return self._quantised[tensor]

    def _dequantised(self, stored: str, scale: NDArray[np.float32], zero: NDArray[Any], axis: int) -> str:
        name = f"{stored}.dequantised"
        inputs = [stored, self._constant(f"{stored}.scale", scale), self._constant(f"{stored}.zero", zero)]
        self._graph.add(helper.make_node("DequantizeLinear", inputs, [name], name, axis=axis))
        return name

    def _constant(self, name: str, values: Any) -> str:
        self._graph.add_tensor(numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name))
        return name

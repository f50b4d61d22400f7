"""An exported graph seen layer by layer: weights and biases by the names that the layers have in the network."""

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from targets.errors import ArtifactError

WEIGHT_OPERATORS = ("Conv", "Gemm", "MatMul")


class ExportedGraph:
    """A model that `pipeline.exporting.export.export_onnx` made, changed in place.

    Weights are given in torch's shapes, [out, in, …], however the file keeps them.

    Args:
        model: whose constants are initialisers.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        _move_constants(model.graph)
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        stored = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "DequantizeLinear"}
        self._stored = {name: source for name, source in stored.items() if source in self.tensors}
        self._layers: dict[str, onnx.NodeProto] = {
            module_path(node.name): node
            for node in model.graph.node
            if node.op_type in WEIGHT_OPERATORS and self._stored.get(node.input[1], node.input[1]) in self.tensors
        }

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with constant weights, in the graph's order."""
        return tuple(self._layers)

    def is_transposed(self, layer: str) -> bool:
        """Whether the file keeps the weight as [in, out]: that of a linear layer over sequences."""
        return bool(self.node(layer).op_type == "MatMul")

    def weight(self, layer: str) -> NDArray[np.float32]:
        """[out, in, …] of a layer, in the file's own steps where it is quantised."""
        name = self.node(layer).input[1]
        stored = self.values(self._stored.get(name, name))
        return stored.T if self.is_transposed(layer) else stored

    def set_weight(self, layer: str, weight: NDArray[np.float32]) -> None:
        """Replace a weight, by one of other sizes perhaps."""
        self._set(self.node(layer).input[1], weight.T if self.is_transposed(layer) else weight)

    def bias_name(self, layer: str) -> str | None:
        """Initialiser of a layer's bias, None where it has none; that of a matrix product is added by a node after."""
        node = self.node(layer)
        if node.op_type != "MatMul":
            return node.input[2] if len(node.input) > 2 else None
        added = [name for after in self.readers(node.output[0]) if after.op_type == "Add" for name in after.input]
        return next((name for name in added if name in self.tensors), None)

    def keep_outputs(self, layer: str, channels: Sequence[int] | NDArray[np.int64]) -> None:
        """Leave a layer only some of its output channels."""
        self.set_weight(layer, self.weight(layer)[channels])
        if bias := self.bias_name(layer):
            self._set(bias, self.values(bias)[channels])

    def values(self, tensor: str) -> NDArray[np.float32]:
        """An initialiser's values."""
        return numpy_helper.to_array(self.tensors[tensor])

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Nodes that a tensor goes into."""
        return [node for node in self.model.graph.node if tensor in node.input]

    def output(self, layer: str) -> str:
        """Name of what a layer gives, its bias added."""
        node = self.node(layer)
        bias = self.bias_name(layer) if node.op_type == "MatMul" else None
        adds = [after for after in self.readers(node.output[0]) if bias in after.input] if bias else []
        return str(adds[0].output[0] if adds else node.output[0])

    def add(self, node: onnx.NodeProto) -> None:
        """Append a node; `sort` brings the nodes into an order in which they can run."""
        self.model.graph.node.append(node)

    def add_tensor(self, tensor: onnx.TensorProto) -> None:
        """Append an initialiser."""
        self.model.graph.initializer.append(tensor)
        self.tensors[tensor.name] = self.model.graph.initializer[-1]

    def sort(self) -> None:
        """Order the nodes so that each comes after what it reads, and drop initialisers that nobody reads."""
        graph = self.model.graph
        waiting, made = list(graph.node), {value.name for value in graph.input} | set(self.tensors) | {""}
        ordered = []
        while waiting:
            ready = [node for node in waiting if made.issuperset(node.input)]
            waiting = [node for node in waiting if not made.issuperset(node.input)]
            if not ready:
                raise ArtifactError(f"The graph reads tensors that nobody writes, such as {waiting[0].input[0]}.")
            made.update(name for node in ready for name in node.output)
            ordered += ready
        read = {name for node in ordered for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(ordered)
        graph.initializer.extend(kept)

    def _set(self, name: str, values: NDArray[np.float32]) -> None:
        self.tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))

    def node(self, layer: str) -> onnx.NodeProto:
        """The convolution or matrix product of a layer.

        Raises:
            ArtifactError: the graph has no such layer.
        """
        if layer not in self._layers:
            raise ArtifactError(f"The exported graph has no layer {layer}: export the network that the units are of.")
        return self._layers[layer]


def _move_constants(graph: onnx.GraphProto) -> None:
    """Make initialisers of weights that are constant nodes, in place: those of fixed convolutions are."""
    weights = {node.input[1] for node in graph.node if node.op_type in WEIGHT_OPERATORS}
    for node in [node for node in graph.node if node.op_type == "Constant" and node.output[0] in weights]:
        value = next(attribute.t for attribute in node.attribute if attribute.name == "value")
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(value), node.output[0]))
        graph.node.remove(node)


def module_path(node_name: str) -> str:
    """``layer1.0.conv1`` of ``/layer1/layer1.0/conv1/Conv``: a child of a container repeats the container's name.

    The ``network`` that a deployed form holds is left out.
    """
    path: list[str] = []
    for part in node_name.strip("/").split("/")[:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(part)
    return ".".join(path).removeprefix("network.")

"""From the trained network to files that runtimes take."""

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from pipeline.compression.criteria import kept_count
from pipeline.exporting.graph import WEIGHT_OPERATORS, ExportedGraph, module_path
from pipeline.families.int8 import Ranges
from pipeline.families.registry import finish, has_family, layer_levels
from pipeline.models.base import Feeds, Unit
from targets.errors import ArtifactError
from targets.files import write_atomically
from targets.levels import Level

OPSET = 13
MAX_IR_VERSION = 9
"""The newest that DeepSparse's onnx 1.14 reads."""


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What was written as ONNX."""

    sha256: str
    file_bytes: int
    opset: int
    ir_version: int
    input_shapes: dict[str, tuple[int, ...]]
    flushed_denormals: int


def export_onnx(model: nn.Module, example: Feeds, path: Path) -> ExportRecord:
    """Write ``model`` as ONNX of fixed shapes, batch norm folded and denormal weights flushed to zero.

    The TorchScript exporter is used on purpose: DeepSparse runs the graphs of the newer one in its fallback.
    Folding the batch norm of nearly dead channels makes denormal weights, which slow some CPUs down by far.

    Args:
        model: deployed network in float32 on the CPU, left in the mode that it was in.
        example: one batch of its inputs, by the names that they get.
        path: file to write; it is whole or absent.
    """
    graph = _torchscript_export(model, example)
    graph.ir_version = min(graph.ir_version, MAX_IR_VERSION)
    _give_each_node_its_own(graph.graph)
    flushed = sum(_flush_denormals(tensor) for tensor in graph.graph.initializer)
    onnx.checker.check_model(graph)
    content = graph.SerializeToString()
    write_atomically(path, content)
    digest = hashlib.sha256(content).hexdigest()
    shapes = {name: array.shape for name, array in example.items()}
    return ExportRecord(digest, len(content), OPSET, graph.ir_version, shapes, flushed)


def unit_initialisers(graph: Path | onnx.ModelProto, units: Sequence[Unit]) -> dict[str, str]:
    """Name of the initialiser that holds each unit's weight, found through the node names that carry module paths.

    Args:
        graph: ONNX file or model that `export_onnx` made.
        units: those to find.

    Raises:
        ArtifactError: a unit has no node with a constant weight of its shape.
    """
    model = _load(graph) if isinstance(graph, Path) else graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    weights = {
        module_path(node.name): node.input[1]
        for node in model.graph.node
        if node.op_type in WEIGHT_OPERATORS and node.input[1] in shapes
    }
    for unit in units:
        shape = shapes.get(weights.get(unit.name, ""))
        if shape not in (unit.shape, unit.shape[::-1]):
            found = f"only one of shape {list(shape)}" if shape else "no such node"
            raise ArtifactError(
                f"The exported graph has no weight of shape {list(unit.shape)} for unit {unit.name} ({found}): "
                "export the network that the units are of."
            )
    return {unit.name: weights[unit.name] for unit in units}


class PlanPatcher:
    """Writes copies of an exported graph whose units are compressed by magnitude, without exporting again.

    Latencies depend on shapes and on where the zeros are, not on what the other weights say, so that a plan can be
    timed before its weights exist. The graph is read, and each layer's weights are sorted, once.

    Args:
        path: ONNX file that `export_onnx` made of the dense network.
        units: those that a plan may name.
        ranges: of the layers that plans may have in int8.

    Raises:
        ArtifactError: the file is broken, or a unit is not in it.
    """

    def __init__(self, path: Path, units: Sequence[Unit], ranges: Ranges | None = None) -> None:
        self._model, self._ranges = _load(path), ranges
        self._units = {unit.name: unit for unit in units}
        initialisers = unit_initialisers(self._model, [layer for unit in units for layer in unit.layers])
        tensors = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._tensors = {layer: tensors[name] for layer, name in initialisers.items()}
        transposed = _transposed(self._model)
        self._transposed = {layer for layer, name in initialisers.items() if name in transposed}
        self._dense = {layer: numpy_helper.to_array(tensor).copy() for layer, tensor in self._tensors.items()}
        self._order: dict[str, NDArray[np.int64]] = {}

    def write(self, plan: Mapping[str, Level], path: Path) -> None:
        """Write the graph with the units of ``plan`` at their levels; the others stay as in the file.

        Raises:
            ValueError: a unit is not in the graph, or there is no such level.
        """
        for unit, level in plan.items():
            if unit not in self._units:
                raise ValueError(f"not in the graph: {unit}")
            if level.family not in ("dense", "unstructured") and not has_family(self._units[unit], level.family):
                raise ValueError(f"{unit}: magnitudes say nothing about level {level.key}")
        layers = layer_levels(self._of(plan), plan)
        self._write({name: self._pruned(name, level) for name, level in layers.items()}, plan, path)

    def write_masks(
        self, masks: Mapping[str, NDArray[np.bool_]], path: Path, plan: Mapping[str, Level] | None = None
    ) -> None:
        """Write the graph with the given weights zeroed; layers without a mask stay as in the file.

        Args:
            masks: layer → True where a weight stays, in the shape of the layer's weight.
            path: file to write.
            plan: unit → level that the masks are of; what its levels do beyond zeros is done as well.

        Raises:
            ValueError: a layer is not in the graph, or its mask is of another shape.
        """
        self._write({layer: self._masked(layer, mask) for layer, mask in masks.items()}, plan or {}, path)

    def _of(self, plan: Mapping[str, Level]) -> list[Unit]:
        return [self._units[name] for name in plan]

    def _write(self, weights: Mapping[str, NDArray[np.float32]], plan: Mapping[str, Level], path: Path) -> None:
        for layer, dense in self._dense.items():
            self._tensors[layer].raw_data = weights.get(layer, dense).tobytes()
        model = self._model
        if any(level.family not in ("dense", "unstructured") or level.precision != "fp32" for level in plan.values()):
            model = onnx.ModelProto()
            model.CopyFrom(self._model)
            finish(ExportedGraph(model), self._of(plan), plan, self._ranges)
        write_atomically(path, model.SerializeToString())

    def _dense_of(self, layer: str) -> NDArray[np.float32]:
        if layer not in self._dense:
            raise ValueError(f"not in the graph: {layer}")
        return self._dense[layer]

    def _masked(self, layer: str, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        dense = self._dense_of(layer)
        mask = mask.T if layer in self._transposed else mask
        if mask.shape != dense.shape:
            raise ValueError(f"{layer}: a mask of shape {mask.shape} for a weight of shape {dense.shape}")
        return np.where(mask, dense, np.float32(0))

    def _pruned(self, layer: str, level: Level) -> NDArray[np.float32]:
        dense = self._dense_of(layer)
        if level.family != "unstructured":
            return dense
        if layer not in self._order:
            self._order[layer] = np.argsort(np.abs(dense).ravel(), kind="stable")
        weight = dense.copy()
        kept = kept_count(weight.size, level.amount)
        weight.ravel()[self._order[layer][: weight.size - kept]] = 0
        return weight


def finish_file(
    path: Path, record: ExportRecord, units: Sequence[Unit], plan: Mapping[str, Level], ranges: Ranges | None = None
) -> ExportRecord:
    """Make a plan's levels real in an exported file whose weights have the plan's zeros; what the file then is.

    Raises:
        ArtifactError: the file is broken, or a unit is not in it.
    """
    model = _load(path)
    finish(ExportedGraph(model), units, plan, ranges)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    write_atomically(path, content)
    return replace(record, sha256=hashlib.sha256(content).hexdigest(), file_bytes=len(content))


def export_openvino_ir(onnx_path: Path, xml_path: Path) -> None:
    """Write an ONNX file as OpenVINO IR in float32: ``xml_path`` and the ``.bin`` beside it."""
    import openvino

    xml_path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=xml_path.parent, prefix=f".{xml_path.stem}."))
    try:
        temporary = folder / xml_path.name
        openvino.save_model(openvino.convert_model(onnx_path), temporary, compress_to_fp16=False)
        for suffix in (".bin", ".xml"):  # the .xml last: who finds it finds both
            temporary.with_suffix(suffix).replace(xml_path.with_suffix(suffix))
    finally:
        shutil.rmtree(folder)


def assert_zeros_survive(path: Path, units: Sequence[Unit], model: nn.Module) -> dict[str, int]:
    """Number of zeros in each unit's exported weight, after checking that every zero of the network is among them.

    Raises:
        ArtifactError: a weight that is zero in the network is not zero in the file.
    """
    graph = _load(path)
    tensors = {tensor.name: tensor for tensor in graph.graph.initializer}
    transposed, counts = _transposed(graph), {}
    for unit, name in unit_initialisers(graph, units).items():
        weight = model.get_parameter(f"{unit}.weight").detach().numpy()
        exported = numpy_helper.to_array(tensors[name])
        exported = exported.T if name in transposed else exported
        lost = int(np.count_nonzero(exported[weight == 0]))
        if lost:
            raise ArtifactError(f"{path}: {lost} of the {int((weight == 0).sum())} zeros of unit {unit} were lost.")
        counts[unit] = int((exported == 0).sum())
    return counts


def _torchscript_export(model: nn.Module, example: Feeds) -> onnx.ModelProto:
    training = model.training
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's deprecation, and shapes of its own nodes that it does not know
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model.eval(),
            tuple(torch.from_numpy(array) for array in example.values()),
            path,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=["output"],
        )
        model.train(training)
        return onnx.load(path)


def _transposed(model: onnx.ModelProto) -> set[str]:
    """Names of the weights that are stored [in, out]: those of linear layers over sequences."""
    return {node.input[1] for node in model.graph.node if node.op_type == "MatMul"}


def _give_each_node_its_own(graph: onnx.GraphProto) -> None:
    """Undo the exporter's sharing of equal tensors, in place: each copy becomes an initialiser that can be patched."""
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    copies = [node for node in graph.node if node.op_type == "Identity" and node.input[0] in tensors]
    for node in copies:
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(tensors[node.input[0]]), node.output[0]))
        graph.node.remove(node)


def _flush_denormals(tensor: onnx.TensorProto) -> int:
    """Set denormal values of a float32 initialiser to zero, in place; how many there were."""
    if tensor.data_type != onnx.TensorProto.FLOAT:
        return 0
    values = numpy_helper.to_array(tensor)
    denormal = (values != 0) & (np.abs(values) < np.finfo(np.float32).tiny)
    if denormal.any():
        tensor.CopyFrom(numpy_helper.from_array(np.where(denormal, np.float32(0), values), tensor.name))
    return int(denormal.sum())


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's kinds differ between its versions
        raise ArtifactError(f"{path} is not a whole ONNX file; export it again.") from error

"""From the trained network to files that runtimes take, and proof that they still say the same."""

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from pipeline.compression.criteria import kept_count
from pipeline.files import write_atomically
from pipeline.models.base import Feeds, Unit
from targets.errors import ArtifactError
from targets.levels import Level

OPSET = 13
MAX_IR_VERSION = 9
"""The newest that DeepSparse's onnx 1.14 reads."""

_WEIGHT_OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What was written as ONNX."""

    sha256: str
    file_bytes: int
    opset: int
    ir_version: int
    input_shapes: dict[str, tuple[int, ...]]
    flushed_denormals: int


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """How far a runtime's outputs are from torch's.

    Args:
        runtime: that ran the file.
        samples: inputs compared.
        max_abs: largest absolute difference of an output.
        max_rel: largest difference over the largest absolute output of torch.
        top1_agreement: fraction of samples whose largest output is the same.
    """

    runtime: str
    samples: int
    max_abs: float
    max_rel: float
    top1_agreement: float


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
        if node.op_type in _WEIGHT_OPERATORS and node.input[1] in shapes
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
    """Writes copies of an exported graph whose units are pruned by magnitude, without exporting again.

    Latencies depend on where the zeros are and not on what the other weights say, so that a plan can be timed
    before its weights exist. The graph is read, and each unit's weights are sorted, once.

    Args:
        path: ONNX file that `export_onnx` made of the dense network.
        units: those that a plan may name.

    Raises:
        ArtifactError: the file is broken, or a unit is not in it.
    """

    def __init__(self, path: Path, units: Sequence[Unit]) -> None:
        self._model = _load(path)
        initialisers = unit_initialisers(self._model, units)
        tensors = {tensor.name: tensor for tensor in self._model.graph.initializer}
        self._tensors = {unit: tensors[name] for unit, name in initialisers.items()}
        transposed = _transposed(self._model)
        self._transposed = {unit for unit, name in initialisers.items() if name in transposed}
        self._dense = {unit: numpy_helper.to_array(tensor).copy() for unit, tensor in self._tensors.items()}
        self._order = {unit: np.argsort(np.abs(w).ravel(), kind="stable") for unit, w in self._dense.items()}

    def write(self, plan: Mapping[str, Level], path: Path) -> None:
        """Write the graph with the units of ``plan`` at their levels; the others stay as in the file.

        Raises:
            ValueError: a unit is not in the graph, or its level is neither dense nor unstructured.
        """
        self._write({unit: self._pruned(unit, level) for unit, level in plan.items()}, path)

    def write_masks(self, masks: Mapping[str, NDArray[np.bool_]], path: Path) -> None:
        """Write the graph with the given weights zeroed; units without a mask stay as in the file.

        Args:
            masks: unit → True where a weight stays, in the shape of the unit's weight.
            path: file to write.

        Raises:
            ValueError: a unit is not in the graph, or its mask is of another shape.
        """
        self._write({unit: self._masked(unit, mask) for unit, mask in masks.items()}, path)

    def _write(self, weights: Mapping[str, NDArray[np.float32]], path: Path) -> None:
        for unit, dense in self._dense.items():
            self._tensors[unit].raw_data = weights.get(unit, dense).tobytes()
        write_atomically(path, self._model.SerializeToString())

    def _dense_of(self, unit: str) -> NDArray[np.float32]:
        if unit not in self._dense:
            raise ValueError(f"not in the graph: {unit}")
        return self._dense[unit]

    def _masked(self, unit: str, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        dense = self._dense_of(unit)
        mask = mask.T if unit in self._transposed else mask
        if mask.shape != dense.shape:
            raise ValueError(f"{unit}: a mask of shape {mask.shape} for a weight of shape {dense.shape}")
        return np.where(mask, dense, np.float32(0))

    def _pruned(self, unit: str, level: Level) -> NDArray[np.float32]:
        dense = self._dense_of(unit)
        if level.family == "dense":
            return dense
        if level.family != "unstructured":
            raise ValueError(f"{unit}: magnitudes say nothing about level {level.key}")
        weight = dense.copy()
        kept = kept_count(weight.size, level.amount)
        weight.ravel()[self._order[unit][: weight.size - kept]] = 0
        return weight


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


def check_parity(
    expected: NDArray[np.float32],
    path: Path,
    feeds: Feeds,
    runtime: str = "onnxruntime",
    tolerance: float = 1e-3,
) -> ParityRecord:
    """Compare a runtime's outputs with torch's, both in float32.

    Args:
        expected: [n, …] outputs of torch.
        path: ONNX file, or OpenVINO IR for ``openvino``.
        feeds: inputs [n, …]; the file's fixed batch size is filled up by repeating.
        runtime: ``onnxruntime`` or ``openvino``.
        tolerance: largest relative difference that passes.

    Raises:
        ArtifactError: the difference is larger, or the file does not load.
    """
    load = _PREDICTORS[runtime]
    try:
        predict, batch_size = load(path)
    except Exception as error:  # each runtime has its own kinds
        raise ArtifactError(f"{runtime} does not load {path}: {error}") from error
    return compare_outputs(runtime, str(path), expected, _in_batches(predict, feeds, batch_size), tolerance)


def compare_outputs(
    runtime: str,
    file: str,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    tolerance: float = 1e-3,
) -> ParityRecord:
    """How far ``found`` outputs [n, …] of a runtime are from the ``expected`` ones of torch.

    Outputs of several numbers at every place, [n, places, numbers], are each held against their own scale: boxes in
    pixels must not hide probabilities.

    Raises:
        ArtifactError: further than ``tolerance`` of the largest output, or not finite.
    """
    difference = np.abs(found - expected)
    scale = np.abs(expected).max(axis=(0, 1) if expected.ndim > 2 else None)
    max_rel = float((difference / np.maximum(scale, np.finfo(np.float32).tiny)).max())
    agreement = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    record = ParityRecord(runtime, len(expected), float(difference.max()), max_rel, agreement)
    if not record.max_rel <= tolerance:
        raise ArtifactError(
            f"{file} on {runtime} differs from torch by {record.max_rel:.2g} of the largest output; "
            f"at most {tolerance:.2g} is rounding. Export again; if it stays, report the operator that differs."
        )
    return record


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


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's kinds differ between its versions
        raise ArtifactError(f"{path} is not a whole ONNX file; export it again.") from error


_Run = Callable[[Feeds], NDArray[np.float32]]


def _onnxruntime(path: Path) -> tuple[_Run, int]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch)[0], session.get_inputs()[0].shape[0]


def _openvino(path: Path) -> tuple[_Run, int]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0], compiled.inputs[0].shape[0]


_PREDICTORS: dict[str, Callable[[Path], tuple[_Run, int]]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _in_batches(predict: _Run, feeds: Feeds, batch_size: int) -> NDArray[np.float32]:
    """Outputs of all inputs; the last batch is filled up by repeating, and the repetitions dropped."""
    count = len(next(iter(feeds.values())))
    rows = np.resize(np.arange(count), -(-count // batch_size) * batch_size)
    outputs = [predict({name: array[batch] for name, array in feeds.items()}) for batch in rows.reshape(-1, batch_size)]
    return np.concatenate(outputs)[:count]

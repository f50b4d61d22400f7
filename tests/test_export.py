"""What is exported runs everywhere, says what torch says, and keeps its zeros."""

import copy
import hashlib
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pipeline.exporting.export import (
    PlanPatcher,
    assert_zeros_survive,
    export_onnx,
    export_openvino_ir,
    unit_initialisers,
)
from pipeline.exporting.parity import ROUNDING_TO_INT8, ParityRecord, check_parity, compare_outputs
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.models.resnet import Bottleneck, CifarResNet, ImageNetResNet
from pipeline.models.tracing import trace_units
from targets.errors import ArtifactError
from targets.levels import DENSE, Level
from tests.deepsparse_engine import fraction_and_outputs

SHAPE = (4, 1, 8, 8)
EXAMPLE = {"input": np.zeros(SHAPE, np.float32)}


def _parity(model: nn.Module, path: Path, inputs: np.ndarray, runtime: str = "onnxruntime") -> ParityRecord:
    return check_parity(torch_predict(model)(inputs), path, {"input": inputs}, runtime)


def _network(seed: int = 0) -> nn.Module:
    """A small residual network whose batch norm does something."""
    torch.manual_seed(seed)
    model = CifarResNet(1, 8, 4, 1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model, path = _network(), tmp_path_factory.mktemp("export") / "model.onnx"
    record = export_onnx(model, EXAMPLE, path)
    return model, path, record


def _weights(path: Path, units) -> dict[str, np.ndarray]:
    graph = onnx.load(path)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    return {unit: tensors[name] for unit, name in unit_initialisers(graph, units).items()}


def test_the_graph_is_one_that_old_readers_take(exported):
    _, path, record = exported
    graph = onnx.load(path)
    assert graph.ir_version == record.ir_version <= 9
    assert [opset.version for opset in graph.opset_import] == [13]
    operators = {node.op_type for node in graph.graph.node}
    assert operators <= {"Conv", "Relu", "Add", "GlobalAveragePool", "Flatten", "Gemm", "Constant"}
    (entry,) = graph.graph.input
    assert tuple(dim.dim_value for dim in entry.type.tensor_type.shape.dim) == SHAPE == record.input_shapes["input"]
    assert record.file_bytes == path.stat().st_size
    assert record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_exporting_warns_of_nothing_and_keeps_the_mode(tmp_path, capfd):
    model = _network().train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        export_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    assert model.training
    assert capfd.readouterr() == ("", "")


def test_every_unit_is_found_in_the_graph(exported):
    model, path, _ = exported
    units = trace_units(model, torch.zeros(1, *SHAPE[1:]))
    weights = _weights(path, units)
    assert list(weights) == [unit.name for unit in units]
    for unit in units:
        dense = model.get_parameter(f"{unit.name}.weight").detach().numpy()
        assert weights[unit.name].shape == dense.shape
        scale = weights[unit.name].reshape(len(dense), -1) / dense.reshape(len(dense), -1)
        assert np.allclose(scale, scale[:, :1], rtol=1e-3), f"{unit.name} is not its weight times one factor a channel"


def test_projections_and_bottlenecks_are_found(tmp_path):
    model = ImageNetResNet(Bottleneck, (2, 1, 1, 1), 5, 3)
    units = get_adapter("resnet:50").units(model, torch.zeros(1, 3, 32, 32))
    export_onnx(model, {"input": np.zeros((1, 3, 32, 32), np.float32)}, tmp_path / "model.onnx")
    found = unit_initialisers(tmp_path / "model.onnx", units)
    assert {"layer1.0.downsample.0", "layer1.1.conv3", "layer4.0.downsample.0", "fc"} < set(found)
    assert len(set(found.values())) == len(units) == 21


def test_linear_layers_over_sequences_are_found_transposed(tmp_path):
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3), nn.Linear(3, 3)).eval()
    units = trace_units(model, torch.zeros(1, 6, 5))
    path = tmp_path / "model.onnx"
    with torch.no_grad():
        model[0].weight[0] = 0
        model[3].weight[1] = 0
    export_onnx(model, {"input": np.zeros((2, 6, 5), np.float32)}, path)
    assert [weight.shape for weight in _weights(path, units).values()] == [(5, 7), (7, 3), (3, 3)]
    assert assert_zeros_survive(path, units, model) == {"0": 5, "2": 0, "3": 3}
    mask = np.ones((3, 3), bool)
    mask[2] = False
    PlanPatcher(path, units).write_masks({"3": mask}, tmp_path / "masked.onnx")
    with torch.no_grad():
        model[3].weight[2] = 0
    _parity(model, tmp_path / "masked.onnx", np.random.default_rng(0).normal(size=(2, 6, 5)).astype(np.float32))


def test_a_unit_that_is_not_in_the_graph_is_named(exported):
    _, path, _ = exported
    other = trace_units(CifarResNet(2, 8, 4, 1), torch.zeros(1, *SHAPE[1:]))
    with pytest.raises(ArtifactError, match=r"unit layer1\.1\.conv1 \(no such node\)"):
        unit_initialisers(path, other)
    wider = trace_units(CifarResNet(1, 16, 4, 1), torch.zeros(1, *SHAPE[1:]))
    with pytest.raises(ArtifactError, match=r"unit conv1 \(only one of shape \[8, 1, 3, 3\]\)"):
        unit_initialisers(path, wider)


@pytest.mark.parametrize("content", [b"", b"hello world"])
def test_a_file_that_is_no_onnx_is_an_artifact_error(tmp_path, exported, content):
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    units = trace_units(exported[0], torch.zeros(1, *SHAPE[1:]))
    with pytest.raises(ArtifactError):
        unit_initialisers(path, units)
    with pytest.raises(ArtifactError):
        _parity(exported[0], path, np.zeros(SHAPE, np.float32))


@pytest.mark.parametrize(("runtime", "suffix"), [("onnxruntime", ".onnx"), ("openvino", ".onnx"), ("openvino", ".xml")])
def test_runtimes_say_what_torch_says(tmp_path, exported, runtime, suffix):
    model, path, _ = exported
    if suffix == ".xml":
        export_openvino_ir(path, tmp_path / "ir" / "model.xml")
        assert sorted(p.name for p in (tmp_path / "ir").iterdir()) == ["model.bin", "model.xml"]
        path = tmp_path / "ir" / "model.xml"
    inputs = np.random.default_rng(0).normal(size=(10, *SHAPE[1:])).astype(np.float32)
    record = _parity(model, path, inputs, runtime)
    assert record.samples == 10
    assert record.max_rel < 1e-5
    assert record.top1_agreement == 1.0


def test_openvino_ir_keeps_float32(tmp_path, exported):
    export_openvino_ir(exported[1], tmp_path / "model.xml")
    assert 'element_type="f16"' not in (tmp_path / "model.xml").read_text()


def test_another_network_is_no_parity(exported):
    inputs = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    with pytest.raises(ArtifactError, match="differs from torch"):
        _parity(_network(seed=1), exported[1], inputs)


def test_int8_may_move_single_values_but_not_all():
    expected = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    moved = expected.copy()
    moved[3, 4] += np.abs(expected).max()
    record = compare_outputs("openvino", "model.onnx", expected, moved, ROUNDING_TO_INT8)
    assert record.max_rel == pytest.approx(1)
    assert record.typical_rel == pytest.approx(1 / np.sqrt(640), rel=0.01)
    for found in (moved[::-1], np.full_like(expected, np.inf)):
        with pytest.raises(ArtifactError, match="in the mean"):
            compare_outputs("openvino", "model.onnx", expected, found, ROUNDING_TO_INT8)
    with pytest.raises(ArtifactError, match="in the mean"):
        compare_outputs("openvino", "model.onnx", expected, moved)


def test_a_nan_is_no_parity(tmp_path):
    model = _network()
    with torch.no_grad():
        model.get_parameter("linear.bias")[0] = float("nan")
    export_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match="differs from torch by up to nan"):
        _parity(model, tmp_path / "model.onnx", np.ones(SHAPE, np.float32))


def test_denormals_of_dead_channels_are_flushed(tmp_path):
    model = _network()
    with torch.no_grad():
        model.get_parameter("bn1.weight")[2] = 1e-39
    record = export_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    assert record.flushed_denormals >= 9
    tiny = np.finfo(np.float32).tiny
    for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer:
        values = np.abs(numpy_helper.to_array(tensor))
        assert not ((values > 0) & (values < tiny)).any()
    _parity(model, tmp_path / "model.onnx", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))


def test_zeros_survive_folding_and_are_counted(tmp_path):
    model, path = _network(), tmp_path / "model.onnx"
    units = trace_units(model, torch.zeros(1, *SHAPE[1:]))
    expected = {unit.name: 0 for unit in units}
    with torch.no_grad():
        for unit in units[1:-1]:
            weight = model.get_parameter(f"{unit.name}.weight")
            weight[weight.abs() < weight.abs().median()] = 0
            expected[unit.name] = int((weight == 0).sum())
    export_onnx(model, EXAMPLE, path)
    assert assert_zeros_survive(path, units, model) == expected
    dense = _network()
    export_onnx(dense, EXAMPLE, path)
    with pytest.raises(ArtifactError, match=r"zeros of unit layer1\.0\.conv1 were lost"):
        assert_zeros_survive(path, units, model)


def test_patched_units_have_exact_counts_and_lose_their_smallest_weights(tmp_path, exported):
    model, path, _ = exported
    units = trace_units(model, torch.zeros(1, *SHAPE[1:]), dense=("conv1", "linear"))
    dense, patcher = _weights(path, units), PlanPatcher(path, units)
    plan = {unit.name: Level("unstructured", 0.4 + 0.1 * i) for i, unit in enumerate(units[1:6])}
    plan["layer3.0.conv2"] = DENSE
    patcher.write(plan, tmp_path / "patched.onnx")
    patched = _weights(tmp_path / "patched.onnx", units)
    for unit in units:
        before, after = dense[unit.name], patched[unit.name]
        kept = round(plan.get(unit.name, DENSE).density * before.size)
        assert np.count_nonzero(after) == kept
        assert np.array_equal(after[after != 0], before[after != 0])
        if kept < before.size:
            assert np.abs(before[after == 0]).max() <= np.abs(before[after != 0]).min()


def test_a_patch_leaves_nothing_of_the_former_one(tmp_path, exported):
    model, path, _ = exported
    units = trace_units(model, torch.zeros(1, *SHAPE[1:]))
    patcher = PlanPatcher(path, units)
    patcher.write({unit.name: Level("unstructured", 0.9) for unit in units}, tmp_path / "first.onnx")
    patcher.write({}, tmp_path / "second.onnx")
    _parity(model, tmp_path / "second.onnx", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first.onnx", "second.onnx"]


def test_masks_of_one_choice_are_patched_in(tmp_path, exported):
    model, path, _ = exported
    units = trace_units(model, torch.zeros(1, *SHAPE[1:]))
    rng = np.random.default_rng(0)
    masks = {unit.name: rng.random(unit.shape) < 0.3 for unit in units[1:-1]}
    patcher, dense = PlanPatcher(path, units), _weights(path, units)
    patcher.write_masks(masks, tmp_path / "patched.onnx")
    for unit, weight in _weights(tmp_path / "patched.onnx", units).items():
        assert np.array_equal(weight, dense[unit] * masks.get(unit, np.ones_like(dense[unit], bool)))
    for wrong in ({"nowhere": masks["layer1.0.conv1"]}, {"conv1": masks["layer1.0.conv1"]}):
        with pytest.raises(ValueError, match=r"not in the graph|a mask of shape"):
            patcher.write_masks(wrong, tmp_path / "patched.onnx")


@pytest.mark.parametrize("plan", [{"nowhere": Level("unstructured", 0.5)}, {"conv1": Level("channel", 0.5)}])
def test_a_plan_that_cannot_be_patched_is_refused(tmp_path, exported, plan):
    model, path, _ = exported
    with pytest.raises(ValueError, match=r"not in the graph|magnitudes say nothing"):
        PlanPatcher(path, trace_units(model, torch.zeros(1, *SHAPE[1:]))).write(plan, tmp_path / "patched.onnx")


def test_units_with_equal_weights_are_patched_apart(tmp_path):
    model = _network()
    names = ("layer1.0.conv1", "layer1.0.conv2")
    with torch.no_grad():
        for name in names:
            model.get_parameter(f"{name}.weight").fill_(1)
        model.get_submodule("layer1.0.bn2").load_state_dict(model.get_submodule("layer1.0.bn1").state_dict())
    export_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    assert "Identity" not in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}
    units = trace_units(model, torch.zeros(1, *SHAPE[1:]))
    PlanPatcher(tmp_path / "model.onnx", units).write({names[1]: Level("unstructured", 0.5)}, tmp_path / "patched.onnx")
    weights = _weights(tmp_path / "patched.onnx", units)
    assert [np.count_nonzero(weights[name]) for name in names] == [8 * 8 * 9, 8 * 8 * 9 // 2]
    _parity(model, tmp_path / "model.onnx", np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))


@pytest.mark.deepsparse
def test_deepsparse_runs_the_whole_graph_itself(tmp_path):
    model, inputs = copy.deepcopy(_network()), np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    export_onnx(model, EXAMPLE, tmp_path / "model.onnx")
    fraction, outputs = fraction_and_outputs(tmp_path / "model.onnx", inputs)
    assert fraction == 1.0
    with torch.no_grad():
        expected = model(torch.from_numpy(inputs)).numpy()
    assert outputs == pytest.approx(expected, abs=1e-4)

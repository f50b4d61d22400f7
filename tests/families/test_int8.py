"""int8: steps and ranges, and the same arithmetic in torch and in the files that ship."""

import copy

import numpy as np
import onnx
import pytest
import torch

from pipeline.families.int8 import InputQuantisers, LayerRanges, Range, Ranges, round_network, rounded
from pipeline.families.ranges import largest_weight, measure_ranges, ranges_from_json, ranges_to_json
from targets.errors import ConfigError
from targets.levels import Level
from tests.families.conftest import LARGEST, Exported

INT8 = Level(precision="int8")


def layers_of(found: Exported) -> list[str]:
    return [layer.name for unit in found.units for layer in unit.layers]


@pytest.mark.parametrize("largest", [127, 63])
def test_rounding_is_off_by_half_a_step_at_most_and_rounds_nothing_twice(largest: int) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 40)) * np.logspace(-3, 3, 6)[:, None]
    weight[2, :5] = 0
    once = rounded(weight, largest)
    step = np.abs(weight).max(axis=1, keepdims=True) / largest
    assert (np.abs(once - weight) <= step / 2 * (1 + 1e-9)).all()
    np.testing.assert_allclose(rounded(once, largest), once, rtol=1e-12)
    assert not once[2, :5].any()
    assert not rounded(np.zeros((2, 3))).any()


def test_a_cpu_without_vnni_gets_seven_bits() -> None:
    assert largest_weight(("avx2", "avx512_vnni")) == 127
    assert largest_weight(("avx2", "avx512f")) == 63


def test_zero_is_a_step_of_every_range() -> None:
    for span in (Range(-1.3, 2.9), Range(0.0, 6.0), Range(-4.0, 0.0)):
        assert 0 <= span.zero_point <= 255
        layer = torch.nn.Sequential(torch.nn.Identity())
        quantisers = InputQuantisers(layer, Ranges({"0": LayerRanges(span, span)}))
        x = torch.tensor([0.0, 100.0, -100.0, span.high / 2], requires_grad=True)
        assert torch.equal(layer(x), x)
        quantisers.enable(["0"])
        found = layer(x)
        zero, largest, smallest, middle = found.detach().tolist()
        assert zero == 0
        assert largest - smallest == pytest.approx(255 * span.scale, rel=1e-5)
        assert abs(middle - span.high / 2) <= span.scale / 2 * 1.001
        found.sum().backward()
        assert torch.equal(x.grad, torch.ones(4))


def test_ranges_hold_every_value_and_survive_their_file(resnet: Exported) -> None:
    ranges = measure_ranges(resnet.path, layers_of(resnet), [{"input": resnet.inputs}], LARGEST)
    assert ranges.layers["conv1"].input == Range(float(resnet.inputs.min()), float(resnet.inputs.max()))
    assert ranges.layers["layer1.0.conv2"].input.low == 0  # behind a ReLU
    assert ranges.layers["layer1.0.conv2"].output.low < 0
    assert ranges.fixed == ("layer2.0.shortcut", "layer3.0.shortcut")
    assert ranges_from_json(ranges_to_json(ranges)) == ranges


def test_torch_computes_what_the_file_computes(resnet: Exported, tmp_path) -> None:
    ranges = measure_ranges(resnet.path, layers_of(resnet), [{"input": resnet.inputs}], LARGEST)
    resnet.patcher().write({unit.name: INT8 for unit in resnet.units}, tmp_path / "int8.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "int8.onnx"), full_check=True)
    network = copy.deepcopy(resnet.network)
    round_network(network, layers_of(resnet), ranges)
    with torch.no_grad():
        expected = network(torch.from_numpy(resnet.inputs)).numpy()
        dense = resnet.network(torch.from_numpy(resnet.inputs)).numpy()
    scale = np.abs(dense).max()
    assert np.abs(resnet.outputs(tmp_path / "int8.onnx") - expected).max() < 0.05 * scale
    assert 0 < np.abs(expected - dense).max() < 0.1 * scale
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * resnet.path.stat().st_size


@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_runtimes_compute_in_int8_and_smaller_blocks_too(runtime, resnet: Exported, tmp_path) -> None:
    plan = {u.name: Level("channel", 0.5, "int8") if u.cuts else INT8 for u in resnet.units}
    resnet.patcher().write(plan, tmp_path / "mixed.onnx")
    if runtime == "openvino":
        import openvino

        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(tmp_path / "mixed.onnx", "CPU", settings)
        info = [op.get_rt_info() for op in compiled.get_runtime_model().get_ops()]
        kinds = [(i["layerType"].astype(str), i["runtimePrecision"].astype(str)) for i in info]
        quick = [precision for kind, precision in kinds if kind == "Convolution"].count("u8")
    else:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(tmp_path / "mixed.onnx", options, providers=["CPUExecutionProvider"])
        quick = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node].count("QLinearConv")
    assert quick == 9  # the two shortcuts too, whose selections are no layers of the network's


def test_int8_at_some_layers_leaves_the_others_alone(resnet: Exported, tmp_path) -> None:
    resnet.patcher().write({"layer2.0": INT8}, tmp_path / "one.onnx")
    tensors = {tensor.name: tensor for tensor in onnx.load(tmp_path / "one.onnx").graph.initializer}
    integers = [name for name, tensor in tensors.items() if name.endswith("weight_int8")]
    assert integers == [f"layer2.0.{name}.weight_int8" for name in ("conv1", "conv2", "shortcut")]
    outputs, dense = resnet.outputs(tmp_path / "one.onnx"), resnet.outputs(resnet.path)
    assert np.abs(outputs - dense).max() < 0.05 * np.abs(dense).max()


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_constant_activations_are_refused_with_a_way_out(resnet: Exported, tmp_path, value: float) -> None:
    from pipeline.exporting.export import PlanPatcher

    blank = {"input": np.full_like(resnet.inputs, value)}
    ranges = measure_ranges(resnet.path, layers_of(resnet), [blank], LARGEST)
    with pytest.raises(ConfigError, match=r"conv1 constant[\s\S]*--families channel"):
        PlanPatcher(resnet.path, resnet.units, ranges).write({"conv1": INT8}, tmp_path / "int8.onnx")

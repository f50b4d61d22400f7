"""Which units and levels a choice of families makes."""

from pathlib import Path

import pytest
import torch

from pipeline.families.choice import chosen_families, with_families
from pipeline.families.registry import all_levels, layer_levels, levels_of, units_of
from pipeline.models.resnet import CifarResNet, residual_widths
from pipeline.models.tracing import trace_units
from pipeline.models.yolov5 import SIZES
from targets.errors import ConfigError
from targets.levels import DENSE, Level, sparsity_grid
from targets.registry import RuntimeInfo


@pytest.fixture(scope="module")
def network():
    return CifarResNet(1, 16, 5, 3).eval()


@pytest.fixture(scope="module")
def layers(network):
    return trace_units(network, torch.zeros(1, 3, 12, 12), dense=("conv1", "linear"))


def test_unstructured_levels_leave_every_layer_a_unit_with_spdys_grid(network, layers):
    units = units_of(layers, residual_widths(network), ("unstructured",))
    assert units == layers
    assert all_levels(units, ("unstructured",), 42) == sparsity_grid(count=41)
    assert [len(levels_of(unit, ("unstructured",), 42)) for unit in units] == [1, *[42] * 6, 1]


def test_blocks_are_units_and_keep_all_weights_and_work(network, layers):
    units = units_of(layers, residual_widths(network), ("channel",))
    assert [unit.name for unit in units] == ["conv1", "layer1.0", "layer2.0", "layer3.0", "linear"]
    assert sum(unit.parameters for unit in units) == sum(layer.parameters for layer in layers)
    assert sum(unit.macs for unit in units) == pytest.approx(sum(layer.macs for layer in layers))
    assert [unit.prunable for unit in units] == [False, True, True, True, False]
    assert [level.amount for level in levels_of(units[1], ("channel",), 42)] == [0, 0.5]


def test_int8_reaches_layers_that_no_family_knows_and_every_level_of_those_that_one_does(network, layers):
    units = units_of(layers, [], ("channel", "int8"))
    assert all(unit.prunable for unit in units)
    assert all(levels_of(unit, ("channel", "int8"), 42) == (DENSE, Level(precision="int8")) for unit in units)
    units = units_of(layers, residual_widths(network), ("channel", "int8"))
    assert levels_of(units[1], ("channel", "int8"), 42) == (
        *(DENSE, Level(precision="int8")),
        *(Level("channel", 0.5), Level("channel", 0.5, "int8")),
    )
    plan = layer_levels(units, {"layer1.0": Level("channel", 0.5, "int8")})
    assert plan["layer1.0.conv1"] == Level(precision="int8")
    assert plan["layer1.0.conv2"] == Level("channel", 0.5, "int8")


def test_families_that_a_runtime_lacks_are_refused():
    info = RuntimeInfo("openvino", ("channel", "int8"), Path("python"), "1", "", ("fp32",))
    assert chosen_families(None, info) == ("channel", "int8")
    assert chosen_families("int8, int8", info) == ("int8",)
    for wrong in ("unstructured", "int8,blocks", ""):
        with pytest.raises(ConfigError, match="it has channel, int8"):
            chosen_families(wrong, info)


def test_the_adapters_name_blocks_whose_layers_fit():
    from pipeline.models.detection import YoloAdapter
    from pipeline.models.yolov5 import YoloV5

    adapter = YoloAdapter(SIZES["yolov5:n"])
    model = YoloV5(SIZES["yolov5:n"], 80).eval()
    blocks = adapter.widths(model)
    assert len(blocks) == sum(name.endswith(".cv1.conv") and ".m." in name for name, _ in model.named_modules())
    for block in blocks:
        for cut in block.cuts:
            assert model.get_submodule(cut.consumer).in_channels == cut.count * cut.size
            assert all(model.get_submodule(name).out_channels == cut.count * cut.size for name in cut.producers)


def test_runtimes_without_a_family_that_was_asked_for_are_no_candidates():
    openvino = RuntimeInfo("openvino", ("channel", "int8"), Path("python"), "1", "", ("fp32",))
    deepsparse = RuntimeInfo("deepsparse", ("unstructured",), Path("python"), "1", "", ("fp32",))
    assert with_families(None, [deepsparse, openvino]) == [deepsparse, openvino]
    assert with_families("int8, channel", [deepsparse, openvino]) == [openvino]
    with pytest.raises(ConfigError, match="deepsparse has unstructured; openvino has channel, int8"):
        with_families("channel,unstructured", [deepsparse, openvino])
    with pytest.raises(ConfigError, match="deepsparse gains nothing from int8"):
        with_families("int8", [deepsparse])

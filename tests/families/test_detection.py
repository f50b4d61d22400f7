"""YOLOv5's bottlenecks: hidden channels that are removed, and int8 around SiLU."""

import copy

import numpy as np
import pytest
import torch

from pipeline.exporting.export import PlanPatcher, export_onnx
from pipeline.families.ranges import measure_ranges
from pipeline.families.registry import units_of
from pipeline.models.detection import YoloAdapter
from pipeline.models.inference import torch_predict
from pipeline.models.yolov5 import SIZES, YoloV5
from targets.levels import Level
from tests.families.conftest import LARGEST

ADAPTER = YoloAdapter(SIZES["yolov5:n"])


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    torch.manual_seed(0)
    images = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    network = YoloV5(SIZES["yolov5:n"], 4).train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.from_numpy(images))
    network.eval()
    units = units_of(ADAPTER.units(network, torch.from_numpy(images[:1])), ADAPTER.widths(network), ("channel", "int8"))
    path = tmp_path_factory.mktemp("detector") / "model.onnx"
    export_onnx(ADAPTER.deployed(network), ADAPTER.feeds(images), path)
    return network, units, path, images


def run(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, ADAPTER.feeds(images))[0]


def test_hidden_channels_that_are_removed_give_what_zeros_give(detector, tmp_path):
    network, units, path, images = detector
    plan = {unit.name: Level("channel", 0.5) for unit in units if unit.cuts and unit.cuts[0].count > 8}
    assert len(plan) > 5
    zeroed, masks = copy.deepcopy(network), {}
    for cut in (cut for unit in units if unit.name in plan for cut in unit.cuts):
        weight = zeroed.get_parameter(f"{cut.consumer}.weight")
        mask = torch.zeros_like(weight, dtype=torch.bool)
        mask[:, torch.randperm(cut.count)[: cut.count // 2]] = True
        masks[cut.consumer] = mask.numpy()
        with torch.no_grad():
            weight.mul_(mask)
    PlanPatcher(path, units).write_masks(masks, tmp_path / "half.onnx", plan)
    expected = torch_predict(ADAPTER.deployed(zeroed), ADAPTER.feeds)(images)
    found = run(tmp_path / "half.onnx", images)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_every_layer_runs_in_int8(detector, tmp_path):
    _, units, path, images = detector
    layers = [layer.name for unit in units for layer in unit.layers]
    ranges = measure_ranges(path, layers, [ADAPTER.feeds(images)], LARGEST)
    plan = {unit.name: Level(precision="int8") for unit in units}
    PlanPatcher(path, units, ranges).write(plan, tmp_path / "int8.onnx")
    dense, found = run(path, images), run(tmp_path / "int8.onnx", images)
    assert np.abs(found[..., 4:] - dense[..., 4:]).max() < 0.2  # probabilities
    assert (tmp_path / "int8.onnx").stat().st_size < 0.4 * path.stat().st_size

"""The network of the published layout, and what it becomes in other runtimes."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline.exporting.export import export_onnx
from pipeline.exporting.parity import check_parity
from pipeline.models.checkpoints import read_weights
from pipeline.models.inference import torch_predict
from pipeline.models.yolov5 import SIZES, DecodedYoloV5, Size, YoloV5
from tests.deepsparse_engine import fraction_and_outputs

TINY = Size("yolov5:tiny", 0.33, 0.125, 0.5)
SPDY_DATA = os.environ.get("SPDY_DATA")


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return YoloV5(TINY, 3).eval()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("n", 1_872_157), ("s", 7_235_389), ("m", 21_190_557), ("l", 46_563_709), ("x", 86_749_405)],
)
def test_every_size_has_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        network = YoloV5(SIZES[f"yolov5:{name}"], 80)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_one_row_of_logits_for_every_anchor(tiny):
    with torch.no_grad():
        assert tiny(torch.zeros(2, 3, 64, 96)).shape == (2, 3 * (8 * 12 + 4 * 6 + 2 * 3), 8)


def test_decoded_boxes_follow_from_cell_anchor_and_stride(tiny):
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        values, decoded = tiny(images)[0].sigmoid().double().numpy(), DecodedYoloV5(tiny)(images)[0].numpy()
    row = 3 * 8 * 12 + 2 * (4 * 6) + 3 * 6 + 5  # the second grid's third anchor (59 x 119), in the cell y = 3, x = 5
    x, y, width, height = values[row, :4]
    expected = [(2 * x - 0.5 + 5) * 16, (2 * y - 0.5 + 3) * 16, (2 * width) ** 2 * 59, (2 * height) ** 2 * 119]
    assert decoded[row, :4] == pytest.approx(expected, rel=1e-5)
    assert decoded[:, 4:] == pytest.approx(values[:, 4:], abs=1e-6)


def test_anchors_come_from_the_checkpoint(tiny):
    network = YoloV5(TINY, 3)
    state = tiny.state_dict()
    network.load_state_dict({**state, "model.24.anchors": 2 * state["model.24.anchors"]})
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        once, twice = DecodedYoloV5(tiny)(images), DecodedYoloV5(network.eval())(images)
    assert torch.allclose(2 * once[..., 2:4], twice[..., 2:4])


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    export_onnx(DecodedYoloV5(tiny), {"images": np.zeros((2, 3, 64, 64), np.float32)}, path)
    return path


def test_the_exported_graph_has_fixed_shapes_and_no_arithmetic_on_them(exported):
    operators = Counter(node.op_type for node in onnx.load(exported).graph.node)
    allowed = {"Add", "Concat", "Constant", "Conv", "MaxPool", "Mul", "Reshape", "Resize", "Sigmoid", "Slice"}
    assert operators.keys() == allowed | {"Transpose"}
    assert operators["Conv"] == 60


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_give_the_boxes_of_torch(tiny, exported, runtime):
    inputs = np.random.default_rng(0).random((3, 3, 64, 64), np.float32)
    expected = torch_predict(DecodedYoloV5(tiny))(inputs)
    assert check_parity(expected, exported, {"images": inputs}, runtime).max_rel < 1e-4


@pytest.mark.deepsparse
def test_deepsparse_runs_the_whole_graph_itself(tiny, exported):
    inputs = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
    fraction, outputs = fraction_and_outputs(exported, inputs)
    assert fraction == 1.0
    assert outputs == pytest.approx(torch_predict(DecodedYoloV5(tiny))(inputs), abs=1e-2)


@pytest.mark.skipif(SPDY_DATA is None, reason="SPDY_DATA is not set")
def test_the_published_weights_fit():
    weights = read_weights(Path(SPDY_DATA) / "yolov5" / "yolov5n.safetensors")
    YoloV5(SIZES["yolov5:n"], 80).load_state_dict(weights)

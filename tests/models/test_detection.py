"""The adapter of detectors, on made-up images and on COCO's."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calibration.datasets import Splits
from calibration.errors import DataError
from pipeline.exporting.export import export_onnx, unit_initialisers
from pipeline.models.detection import YoloAdapter, load_yolov5
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.models.yolov5 import SIZES, Size, YoloV5
from targets.errors import ArtifactError, ConfigError
from tests.calibration.detection_data import write_coco
from tests.models.splits import stripes

TINY = Size("yolov5:tiny", 0.33, 0.125, 0.5)
SPDY_DATA = os.environ.get("SPDY_DATA")
needs_data = pytest.mark.skipif(SPDY_DATA is None, reason="SPDY_DATA is not set")


@pytest.fixture(scope="module")
def adapter():
    return YoloAdapter(TINY)


@pytest.fixture(scope="module")
def splits(adapter, tmp_path_factory):
    return adapter.load_data(write_coco(tmp_path_factory.mktemp("data") / "pets"), None, 64)


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(0)
    return YoloV5(TINY, 2).eval()


@pytest.fixture(scope="module")
def weights(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(tiny.state_dict(), path)
    return path


@pytest.mark.parametrize("kind", ["tensors.pt", "module.pt", "training.pt", "half.safetensors"])
def test_every_kind_of_checkpoint_gives_the_same_network(adapter, splits, tiny, tmp_path, kind):
    path, half = tmp_path / kind, YoloV5(TINY, 2).half()
    half.load_state_dict(tiny.state_dict())
    contents = {"tensors.pt": half.state_dict(), "module.pt": half, "training.pt": {"epoch": -1, "model": half}}
    save_file(half.state_dict(), path) if path.suffix == ".safetensors" else torch.save(contents[kind], path)
    network = adapter.load(path, splits)
    assert not network.training
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    for name, tensor in network.state_dict().items():
        assert torch.allclose(tensor.float(), tiny.state_dict()[name].half().float())


def test_the_first_and_the_predicting_convolutions_stay_dense(adapter, tiny):
    units = adapter.units(tiny, torch.zeros(1, 3, 64, 64))
    assert len(units) == 60
    assert [unit.name for unit in units if not unit.prunable] == [
        "model.0.conv",
        *(f"model.24.m.{n}" for n in range(3)),
    ]
    by_name = {unit.name: unit for unit in units}
    assert by_name["model.1.conv"].latency_group == "conv:8x16x3x2@32x32"
    assert by_name["model.2.m.0.cv2.conv"].macs == 8 * 8 * 9 * 16 * 16
    assert by_name["model.23.m.0.cv1.conv"].latency_group == by_name["model.8.m.0.cv1.conv"].latency_group


def test_the_units_are_found_in_the_exported_graph(adapter, tiny, tmp_path):
    example = adapter.feeds(np.zeros((1, 3, 64, 64), np.float32))
    export_onnx(adapter.deployed(tiny), example, tmp_path / "model.onnx")
    units = adapter.units(tiny, torch.zeros(1, 3, 64, 64))
    assert len(unit_initialisers(tmp_path / "model.onnx", units)) == 60


def test_blocks_are_what_correction_matches(adapter, tiny):
    assert adapter.blocks(tiny) == [f"model.{number}" for number in (2, 4, 6, 8, 9, 13, 17, 20, 23)]


def test_losses_are_those_of_the_dense_network_and_the_labels(adapter, tiny, splits):
    batch = splits.train.batch(np.arange(3), np.random.default_rng(0))
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
    outputs = tiny(inputs).detach()
    changed = outputs + 0.1
    assert adapter.calibration_loss(outputs, outputs) == pytest.approx(torch.zeros(3), abs=1e-5)
    assert torch.all(adapter.calibration_loss(changed, outputs) > 0.1)
    more = adapter.training_loss(outputs, changed, labels) - adapter.training_loss(outputs, outputs, labels)
    assert float(more) > 0
    score = adapter.training_score(outputs, labels)
    assert score.shape == (3,)
    assert torch.all((score >= 0) & (score <= 1))


def test_anchors_of_the_checkpoint_are_those_of_the_loss(splits, tiny, tmp_path):
    state = tiny.state_dict()
    save_file({**state, "model.24.anchors": state["model.24.anchors"] * 6}, tmp_path / "other.safetensors")
    adapter, batch = YoloAdapter(TINY), splits.train.batch(np.arange(3), np.random.default_rng(0))
    outputs, labels = torch.zeros(3, 252, 7), torch.from_numpy(batch.labels)
    before = adapter.training_loss(outputs, outputs, labels)
    adapter.load(tmp_path / "other.safetensors", splits)
    assert adapter.training_loss(outputs, outputs, labels) != before


class _Oracle:
    """A deployed network that sees what the labels say, apart from the images it is told to miss."""

    def __init__(self, split, missed=()):
        self._answers = {split.inputs(np.array([n]))[0].tobytes(): n for n in range(len(split))}
        self._split, self._missed = split, missed

    def __call__(self, inputs):
        outputs = np.zeros((len(inputs), 252, 7), np.float32)
        for output, image in zip(outputs, inputs, strict=True):
            number = self._answers[image.tobytes()]
            kind, *box = self._split.labels[number, 0]
            output[0, :4] = np.array(box) * 64 + (20 if number in self._missed else 0)
            output[0, 4] = output[0, 5 + int(kind)] = 0.9
        return outputs


def test_a_network_that_sees_everything_has_a_perfect_score(adapter, splits):
    score = adapter.evaluate(_Oracle(splits.test), splits)
    assert (score.metric, score.value) == ("mAP@.5:.95", pytest.approx(1))
    assert score.per_sample == pytest.approx(np.ones(4))


def test_a_missed_object_lowers_the_score_and_its_image(adapter, splits):
    score = adapter.evaluate(_Oracle(splits.test, missed=(2,)), splits)
    assert 0.7 < score.value < 0.8  # three of four objects, one of two in one class
    assert score.per_sample.argmin() == 2
    counts = np.array([[1, 1, 1, 1], [2, 2, 0, 0]])
    assert score.resampled(counts) == pytest.approx([score.value, 1])


def test_weights_and_data_are_needed(adapter, splits):
    with pytest.raises(ConfigError, match=r"needs annotated images: give --data images with COCO's instances_"):
        adapter.load_data(None, None, None)
    with pytest.raises(ConfigError, match="yolov5:tiny needs trained weights"):
        adapter.load(None, splits)
    with pytest.raises(ConfigError, match="judged by annotated images"):
        adapter.evaluate(lambda inputs: inputs, stripes(8))


def test_another_number_of_classes_is_a_configuration_error(adapter, weights, tmp_path):
    save_file(YoloV5(TINY, 5).state_dict(), tmp_path / "five.safetensors")
    data = adapter.load_data(write_coco(tmp_path / "pets"), None, 64)
    with pytest.raises(ConfigError, match="knows 5 classes, the data 'pets' has 2: give --data all the classes"):
        adapter.load(tmp_path / "five.safetensors", data)


def test_weights_of_another_size_are_named(tmp_path):
    save_file(YoloV5(SIZES["yolov5:n"], 2).state_dict(), tmp_path / "nano.safetensors")
    with pytest.raises(ArtifactError, match=r"of another shape .*These weights fit --model yolov5:n"):
        load_yolov5(SIZES["yolov5:s"], tmp_path / "nano.safetensors")


def test_an_input_size_that_does_not_fit_is_refused(adapter, tmp_path):
    with pytest.raises(DataError, match="a multiple of 32, such as 320 or 352"):
        adapter.load_data(write_coco(tmp_path / "pets"), None, 321)


def test_the_usual_input_is_640_pixels():
    with torch.device("meta"):
        network = YoloV5(SIZES["yolov5:x"], 80)
        assert network(torch.zeros(1, 3, 640, 640)).shape == (1, 25200, 85)


@needs_data
@pytest.mark.slow
def test_the_dense_network_has_its_known_precision():
    adapter = get_adapter("yolov5:n")
    splits = adapter.load_data(Path(SPDY_DATA) / "coco", None, None)
    network = adapter.load(Path(SPDY_DATA) / "yolov5" / "yolov5n.pt", splits)
    predict = torch_predict(adapter.deployed(network), adapter.feeds, adapter.recipe.inference_batch)
    known = {splits.test: (0.712, 0.477), splits.train: (0.600, 0.362)}
    for split, expected in known.items():
        found = adapter.evaluate(predict, Splits("coco", split, split))
        assert (found.others["mAP@.5"], found.value) == pytest.approx(expected, abs=0.005)

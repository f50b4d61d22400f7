"""A detector's bundle finds named objects where they are in the picture, whatever its size and its runtime."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from calibration.letterbox import GREY
from calibration.pictures import Preprocessing
from pipeline import load_bundle
from pipeline.serving.detection import found_objects
from pipeline.serving.model import InputError
from pipeline.serving.record import TensorSpec
from tests.command import pipeline
from tests.serving import bundles

SIDE = 64
OUTPUTS = np.array(
    [  # centre x, y, width, height in the square, objectness, probability of cat and dog
        [32, 32, 16, 8, 0.9, 0.1, 1.0],
        [33, 32, 16, 8, 0.8, 0.1, 1.0],  # the same dog once more
        [32, 32, 16, 8, 0.7, 1.0, 0.1],  # a cat in the same place
        [4, 32, 16, 32, 0.5, 1.0, 0.0],  # reaches over the left edge
        [10, 30, 4, 4, 0.2, 1.0, 0.0],  # hardly there
    ],
    np.float32,
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that finds the same objects in every picture."""
    folder = tmp_path_factory.mktemp("detector")
    boxes = numpy_helper.from_array(OUTPUTS[None], "boxes")
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Add", ["boxes", "nothing"], ["output"]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, *OUTPUTS.shape])
    graph = helper.make_graph(
        nodes, "detector", [images], [output], [boxes, numpy_helper.from_array(np.zeros(1, np.float32), "zero")]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "model.onnx"
    )
    return bundles.write_bundle_around(
        folder,
        task="object-detection",
        inputs=(TensorSpec("images", (1, 3, SIDE, SIDE), "float32"),),
        output=TensorSpec("output", (1, *OUTPUTS.shape), "float32"),
        batch_size=1,
        preprocessing=Preprocessing("RGB", (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, frame=GREY),
        classes=("cat", "dog"),
    )


@pytest.mark.parametrize(
    ("size", "dog", "edge"),
    [  # a square of 64: as it is, twice as large, wide (grey above and below), tall (grey left and right)
        ((64, 64), (24, 28, 40, 36), (0, 16, 12, 48)),
        ((128, 128), (48, 56, 80, 72), (0, 32, 24, 96)),
        ((128, 64), (48, 24, 80, 40), (0, 0, 24, 64)),
        ((32, 64), (8, 28, 24, 36), None),  # all of it lies in the grey
    ],
)
def test_boxes_are_where_the_objects_are_in_the_picture(
    bundle: Path, size: tuple[int, int], dog: tuple[float, ...], edge: tuple[float, ...] | None
) -> None:
    with load_bundle(bundle) as model:
        found = model.detect(Image.new("RGB", size))
    assert [(o.name, round(o.confidence, 3)) for o in found] == [("dog", 0.9), ("cat", 0.7), ("cat", 0.5)]
    assert found[0].box == found[1].box == pytest.approx(dog)
    if edge:
        assert found[2].box == pytest.approx(edge)
    else:
        assert found[2].box[0] == found[2].box[2] == 0


def test_a_picture_is_turned_as_its_camera_says(bundle: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown standing
    Image.new("RGB", (128, 64)).save(tmp_path / "turned.jpg", exif=exif)
    with load_bundle(bundle) as model:
        assert model.detect(tmp_path / "turned.jpg") == model.detect(Image.new("RGB", (64, 128)))


def test_how_sure_it_must_be_is_the_callers_choice() -> None:
    def count(confidence: float) -> int:
        return len(found_objects(OUTPUTS, ("cat", "dog"), (SIDE, SIDE), SIDE, confidence))

    assert [count(confidence) for confidence in (0.1, 0.25, 0.6, 0.95)] == [4, 3, 2, 0]


def test_the_command_says_what_is_where(bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (128, 64)).save(tmp_path / "street.png")
    np.save(tmp_path / "x.npy", np.zeros((2, 3, SIDE, SIDE), np.float32))
    answer = json.loads(pipeline("predict", bundle, "street.png", "--json", cwd=tmp_path).stdout)
    ((dog, *others),) = answer["predictions"]
    assert (dog["class"], dog["box"], len(others)) == ("dog", [48, 24, 80, 40], 2)
    told = pipeline("predict", bundle, "street.png", "--top", 1, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "48, 24, 80, 40" in told.stderr
    answer = json.loads(pipeline("predict", bundle, "x.npy", "--json", "--top", 1, cwd=tmp_path).stdout)
    assert [row[0]["box"] for row in answer["predictions"]] == [[24, 28, 40, 36]] * 2


def test_a_detector_is_no_classifier_and_the_other_way_round(bundle: Path, tmp_path: Path) -> None:
    with load_bundle(bundle) as model, pytest.raises(InputError, match="no classifier but does object-detection"):
        model.predict(Image.new("RGB", (8, 8)))
    with load_bundle(bundles.make_bundle(tmp_path)) as model, pytest.raises(InputError, match="no detector"):
        model.detect(Image.new("RGB", (8, 8)))

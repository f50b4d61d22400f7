"""Bundles of detectors give named boxes in the image's own pixels."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from pipeline import load_bundle
from pipeline.models.detection import YoloAdapter
from pipeline.models.yolov5 import YoloV5
from pipeline.serving.detection import CONFIDENCE, read_objects
from tests.calibration.detection_data import write_coco
from tests.command import pipeline
from tests.models.test_detection import TINY
from tests.serving.bundles import bundle_of


def _outputs(*rows):
    """[anchors, 5 + 2] of (centre x, centre y, width, height, objectness, two probabilities)."""
    return np.array(rows, np.float32).reshape(-1, 7)


def test_boxes_are_where_they_are_in_the_image_and_cut_at_its_edges():
    image = Image.new("RGB", (80, 40))  # letterboxed to 64 x 32, 16 grey rows above and below
    outputs = _outputs(
        (32, 32, 16, 8, 0.9, 0.1, 1.0),
        (33, 32, 16, 8, 0.8, 0.1, 1.0),  # the same object
        (60, 20, 16, 16, 0.5, 0.8, 0.0),  # reaches over the edges
        (10, 30, 8, 8, CONFIDENCE, 0.9, 0.0),  # too unsure
    )
    found = read_objects(outputs, image, 64, ("cat", "dog"))
    assert [one.name for one in found] == ["dog", "cat"]
    assert found[0].probability == pytest.approx(0.9)
    assert found[0].box == pytest.approx((30, 15, 50, 25))
    assert found[1].box == pytest.approx((65, 0, 80, 15))
    assert read_objects(_outputs(), image, 64, ("cat", "dog")) == []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    network = YoloV5(TINY, 2).eval()
    for name, parameter in network.named_parameters():  # biased towards seeing something
        if name.startswith("model.24") and name.endswith("bias"):
            parameter.data += 6
    save_file(network.state_dict(), folder / "tiny.safetensors")
    return bundle_of(folder, YoloAdapter(TINY), folder / "tiny.safetensors", write_coco(folder / "pets"), 64)


def test_an_image_gives_the_boxes_of_its_own_outputs(bundle, tmp_path):
    path, _, splits = bundle
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 90, 3), np.uint8))
    image.save(tmp_path / "photo.png")
    with load_bundle(path) as model:
        (outputs,) = model(splits.test.preprocessing(image)[None])
        found = model.predict(tmp_path / "photo.png")
    assert found
    assert found == read_objects(outputs, image, 64, ("cat", "dog"))
    answer = json.loads(pipeline("predict", path, "photo.png", "--json", cwd=tmp_path).stdout)
    assert answer["predictions"] == [[one.to_json() for one in found]]  # --top cuts classes, not objects
    assert "box" in pipeline("predict", path, "photo.png", cwd=tmp_path).stderr

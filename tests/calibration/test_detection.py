"""Annotated images become inputs and labels, from both layouts alike; what cannot be true is refused."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.detection import detection_splits
from calibration.errors import DataError
from tests.calibration.detection_data import BOX, write_coco, write_yolo, zipped

EVERY = np.arange(4)
LAYOUTS = {
    "coco": write_coco,
    "coco zip": lambda root: zipped(write_coco(root)),
    "yolo": write_yolo,
    "yolo zip": lambda root: zipped(write_yolo(root)),
    "yolo without yaml": lambda root: write_yolo(root, yaml=False),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def splits(request, tmp_path):
    return detection_splits(request.param(tmp_path / "pets"), 160)


def test_every_layout_gives_the_same_samples(splits):
    assert (len(splits.train), len(splits.test)) == (6, 4)
    assert splits.train.classes in {("cat", "dog"), ("0", "1")}
    assert splits.test.input_shape == (3, 160, 160)
    inputs = splits.test.inputs(EVERY)
    assert inputs.shape == (4, 3, 160, 160)
    assert inputs.dtype == np.float32
    # 80 x 40 doubles to 160 x 80, and 40 rows of grey come above and below it.
    assert np.all(inputs[:, :, [0, 39, 120, 159]] == np.float32(114 / 255))
    assert np.all(inputs[:, :, 44 + 12 : 80, 24:96] == np.float32(250 / 255))
    left, top, width, height = np.array(BOX) * 2 / 160
    expected = [left + width / 2, top + height / 2 + 0.25, width, height]
    assert splits.test.labels == pytest.approx(np.array([[[n % 2, *expected]] for n in range(4)]), abs=1e-6)
    assert splits.test.regions == pytest.approx(np.tile([0, 0.25, 1, 0.75], (4, 1)))


def test_training_sees_mosaics_whose_boxes_fit_what_is_in_them(splits):
    batch = splits.train.batch(np.arange(6), np.random.default_rng(0))
    assert batch.inputs.shape == (6, 3, 160, 160)
    assert batch.inputs.dtype == batch.labels.dtype == np.float32
    boxes = batch.labels[batch.labels[..., 0] >= 0]
    assert len(boxes) > 6
    assert np.all((boxes[:, 1:3] - boxes[:, 3:] / 2 >= -1e-6) & (boxes[:, 1:3] + boxes[:, 3:] / 2 <= 1 + 1e-6))
    for picture, rows in zip(batch.inputs, batch.labels, strict=True):
        for _, x, y, width, height in rows[rows[:, 0] >= 0] * 160:
            middle = picture[:, int(y), int(x)]
            assert middle.min() > np.median(picture)  # the object is bright, and what surrounds it is not
            assert min(width, height) > 2
    again = splits.train.batch(np.arange(6), np.random.default_rng(0))
    assert np.array_equal(batch.inputs, again.inputs)
    assert np.array_equal(batch.labels, again.labels)


def test_equal_pictures_have_equal_digests(tmp_path):
    one, other = (
        detection_splits(write(tmp_path / name), 160) for name, write in (("a", write_coco), ("b", write_yolo))
    )
    assert [one.train.digest(i) for i in range(6)] == [other.train.digest(i) for i in range(6)]
    assert len({one.train.digest(i) for i in range(6)}) == 6


def test_new_images_are_prepared_as_those_of_the_data(tmp_path):
    splits = detection_splits(write_coco(tmp_path / "pets"), 96)
    with Image.open(tmp_path / "pets" / "val2017" / "002.png") as image:
        assert np.array_equal(splits.test.preprocessing(image), splits.test.inputs(np.array([2]))[0])


@pytest.mark.parametrize("side", [0, 100, 650, -32])
def test_sides_that_do_not_fit_the_grids_are_refused(tmp_path, side):
    near = {650: "640 or 672", 100: "96 or 128"}.get(side, "32 or 64")
    with pytest.raises(DataError, match=f"give --input-size a multiple of 32, such as {near}") as caught:
        detection_splits(tmp_path, side)
    assert caught.value.exit_code == 2


def _change(path: Path, key: str, number: int, **values) -> None:
    content = json.loads(path.read_text())
    content[key][number] |= values
    path.write_text(json.dumps(content))


def _crowd(path):
    _change(path, "annotations", 0, iscrowd=1)


COCO_FAULTS = {
    "missing image": (
        lambda path: (path.parents[1] / "val2017" / "001.png").unlink(),
        r"names 1 images that are not there \(001\.png\)\. Put them back",
    ),
    "no width": (
        lambda path: _change(path, "annotations", 1, bbox=[10, 5, 0, 20]),
        r"annotation 101 of image 1 has the empty box \[10\.0, 5\.0, 0\.0, 20\.0\].*Correct or remove it",
    ),
    "outside": (
        lambda path: _change(path, "annotations", 1, bbox=[90, 5, 10, 20]),
        r"annotation 101 of image 1 has the empty box .* in 80x40 pixels",
    ),
    "unknown category": (
        lambda path: _change(path, "annotations", 2, category_id=5),
        r"annotation 102 of image 2 has the unknown category 5\. Add it to the file's categories",
    ),
    "unknown image": (
        lambda path: _change(path, "annotations", 2, image_id=99),
        r"annotation 102 of image 99, but there is no such image in the file",
    ),
    "box of three": (
        lambda path: _change(path, "annotations", 2, bbox=[1, 2, 3]),
        r"is not in COCO's format; annotations\.2\.bbox\.3: Field required",
    ),
    "no json": (lambda path: path.write_text("{"), r"is not in COCO's format; the file: Invalid JSON"),
    "captions": (lambda path: path.write_text('{"images": []}'), r"annotations: Field required"),
    "other categories": (
        lambda path: _change(path, "categories", 0, name="horse"),
        r"must have the same categories with the same ids; in only one of them: \['dog', 'horse'\]",
    ),
    "nothing": (
        lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []})),
        r"annotates no object in 4 images",
    ),
    "no validation": (lambda path: path.unlink(), r"must have one instances_val\*\.json, not none\. Lay it out as"),
}


@pytest.mark.parametrize(("damage", "message"), COCO_FAULTS.values(), ids=COCO_FAULTS.keys())
def test_annotations_that_cannot_be_true_are_refused(tmp_path, damage, message):
    root = write_coco(tmp_path / "pets")
    damage(root / "annotations" / "instances_val2017.json")
    with pytest.raises(DataError, match=message):
        detection_splits(root, 160)


def test_boxes_that_reach_over_the_edge_are_clipped(tmp_path):
    root = write_coco(tmp_path / "pets")
    _change(root / "annotations" / "instances_val2017.json", "annotations", 0, bbox=[-8, 20, 16, 40])
    assert detection_splits(root, 160).test.labels[0, 0] == pytest.approx([0, 0.05, 0.625, 0.1, 0.25])


def test_crowds_are_kept_apart_from_objects(tmp_path):
    root = write_coco(tmp_path / "pets")
    _crowd(root / "annotations" / "instances_val2017.json")
    split = detection_splits(root, 160).test
    assert list(split.labels[:, 0, 0]) == [-1, 1, 0, 1]
    assert list(split.crowds[:, 0, 0]) == [0, -1, -1, -1]


def test_an_image_of_another_size_than_annotated_is_refused_when_it_is_read(tmp_path):
    root = write_coco(tmp_path / "pets")
    Image.new("RGB", (50, 50)).save(root / "val2017" / "001.png")
    split = detection_splits(root, 160).test
    with pytest.raises(DataError, match=r"001\.png has 50x50 pixels, its annotations are for 80x40"):
        split.inputs(EVERY)


def test_an_image_is_turned_as_its_camera_says(tmp_path):
    root = write_yolo(tmp_path / "pets", yaml=False)
    with Image.open(root / "images" / "val" / "000.png") as image:
        exif = image.getexif()
        exif[274] = 8  # held on its side
        image.rotate(-90, expand=True).save(root / "images" / "val" / "000.png", exif=exif)
    split = detection_splits(root, 160).test
    assert split.inputs(EVERY)[0, :, 60:78, 24:96].min() == np.float32(250 / 255)


def _label(line: str, name: str = "001"):
    return lambda root: (root / "labels" / "val" / f"{name}.txt").write_text(line)


YOLO_FAULTS = {
    "missing image": (
        lambda root: (root / "images" / "val" / "001.png").unlink(),
        r"labels/val/ names 1 images that are not there \(labels/val/001\.txt\)",
    ),
    "empty box": (_label("\n0 0.5 0.5 0 0.2"), r"001\.txt, line 2: the box is empty"),
    "unknown class": (
        _label("2 0.5 0.5 0.1 0.2"),
        r"001\.txt, line 1: unknown class 2, there are 0 to 1",
    ),
    "half a class": (_label("0.5 0.5 0.5 0.1 0.2"), r"unknown class 0\.5"),
    "pixels": (_label("0 40 20 10 10"), r"must be shares of the image's width and height"),
    "infinite": (_label("0 0.5 0.5 inf 0.5"), r"must be shares"),
    "short": (_label("0 0.5 0.5 0.5"), r"4 numbers are no box: class, x, y, width and height are needed"),
    "words": (_label("cat 0.5 0.5 0.5 0.5"), r"line 1: could not convert string to float: 'cat'"),
    "broken image": (
        lambda root: (root / "images" / "val" / "001.png").write_bytes(b"PNG"),
        r"images/val/001\.png is not a readable image",
    ),
    "no folder": (
        lambda root: (root / "data.yaml").write_text("train: images/train\nval: images/valid\nnames: [cat, dog]"),
        r"data\.yaml names the folder images/valid, which is not there",
    ),
    "no list": (
        lambda root: (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cat, dog]"),
        r"data\.yaml names the list train\.txt, which is not there",
    ),
    "listed image missing": (
        lambda root: (
            (root / "train.txt").write_text("images/train/000.png\nimages/train/999.png\n"),
            (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [cat, dog]"),
        ),
        r"train\.txt lists images/train/999\.png, which is not there",
    ),
    "same folder": (
        lambda root: (root / "data.yaml").write_text("train: images/val\nval: images/val\nnames: [cat, dog]"),
        r"4 images are in train and in val, such as images/val/000\.png",
    ),
    "no names": (
        lambda root: (root / "data.yaml").write_text("train: images/train\nval: images/val"),
        r"data\.yaml does not describe a data set .*names.* needs train, val \(folders of images.*\) and names",
    ),
    "gap in names": (
        lambda root: (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: cat, 2: dog}"),
        r"names must be a list, or a mapping from 0, 1, 2",
    ),
    "no yaml": (lambda root: (root / "data.yaml").write_text("a: [1"), r"does not describe a data set \(ParserError"),
}


@pytest.mark.parametrize(("damage", "message"), YOLO_FAULTS.values(), ids=YOLO_FAULTS.keys())
def test_labels_that_cannot_be_true_are_refused(tmp_path, damage, message):
    root = write_yolo(tmp_path / "pets")
    damage(root)
    with pytest.raises(DataError, match=message):
        detection_splits(root, 160)


def test_images_without_labels_have_no_objects_and_outlines_become_boxes(tmp_path):
    root = write_yolo(tmp_path / "pets", yaml=False)
    (root / "labels" / "val" / "000.txt").unlink()
    _label("1 0.1 0.2 0.5 0.2 0.5 0.6 0.3 0.8")(root)
    labels = detection_splits(root, 160).test.labels
    assert list(labels[0, 0]) == [-1, 0, 0, 0, 0]
    assert labels[1, 0] == pytest.approx([1, 0.3, 0.5, 0.4, 0.3])


def test_numbered_names_and_folders_of_another_machine_are_understood(tmp_path):
    root = write_yolo(tmp_path / "pets")
    text = "path: /home/somebody/pets\ntrain: [./images/train]\nval: ../pets/images/val\nnames: {0: cat, 1: dog}\n"
    (root / "data.yaml").write_text(text.replace("../pets/", "../"))
    splits = detection_splits(root, 160)
    assert (splits.train.classes, len(splits.train), len(splits.test)) == (("cat", "dog"), 6, 4)


def test_folders_of_classes_are_no_detection_data(make_images):
    with pytest.raises(DataError, match=r"no annotations that are known here, only test, train\. Lay it out as COCO"):
        detection_splits(make_images(), 160)


@pytest.mark.skipif("SPDY_DATA" not in os.environ, reason="SPDY_DATA is not set")
def test_cocos_own_annotations_are_read():
    splits = detection_splits(Path(os.environ["SPDY_DATA"]) / "coco", 640)
    assert (len(splits.train), len(splits.test), len(splits.train.classes)) == (64, 32, 80)
    assert [int((s.labels[..., 0] >= 0).sum()) for s in (splits.train, splits.test)] == [510, 207]
    assert [int((s.crowds[..., 0] >= 0).sum()) for s in (splits.train, splits.test)] == [5, 3]


def test_images_may_be_listed_one_by_one_as_in_cocos_own_data(tmp_path):
    root = write_yolo(tmp_path / "pets")
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("./images/train/000.png\n/home/somebody/pets/images/train/002.png\n\n")
    (root / "val.txt").write_text("images/val/001.png\r\nimages/val/003.png\r\nimages/val/000.png\r\n")
    (root / "labels" / "val" / "000.txt").unlink()
    (root / "data.yaml").write_text("train: lists/train.txt\nval: val.txt\nnames: [cat, dog]\n")
    splits = detection_splits(zipped(root), 160)
    assert (len(splits.train), len(splits.test)) == (2, 3)
    assert [int(boxes[0, 0]) for boxes in splits.test.labels] == [-1, 1, 1]

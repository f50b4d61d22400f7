import json
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calibration.datasets import load_splits
from calibration.errors import DataError
from calibration.images import ImageSplit, Index
from calibration.pictures import IMAGES, LargePictures, Preprocessing, SmallPictures
from calibration.sources import FolderSource


def test_labels_follow_the_alphabet_and_inputs_are_normalised_pixels(make_images):
    root = make_images(classes=("dog", "ant", "cat"))
    splits = load_splits(root)
    assert splits.name == "pictures"
    assert splits.train.classes == ("ant", "cat", "dog")
    assert splits.train.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert splits.train.input_shape == (3, 10, 12)
    pixels = np.asarray(Image.open(root / "train/cat/002.png"), np.float64) / 255
    expected = ((pixels - IMAGES.mean) / IMAGES.std).transpose(2, 0, 1)
    np.testing.assert_allclose(splits.train.inputs(np.array([7]))[0], expected, atol=1e-6)


def test_zip_and_folder_give_the_same_samples(make_images, zip_folder):
    root = make_images()
    folder, zipped = load_splits(root), load_splits(zip_folder(root))
    indices = np.array([9, 0, 3, 3])
    np.testing.assert_array_equal(folder.train.inputs(indices), zipped.train.inputs(indices))
    assert [folder.test.digest(i) for i in range(10)] == [zipped.test.digest(i) for i in range(10)]


def test_links_to_folders_are_followed_but_not_in_circles(make_images, tmp_path):
    root = make_images()
    expected = [load_splits(root).train.digest(i) for i in range(10)]
    (root / "train").rename(tmp_path / "elsewhere")
    (root / "train").symlink_to(tmp_path / "elsewhere")
    (root / "back").symlink_to(root)
    shutil.rmtree(root / "test")
    (root / "test").symlink_to(tmp_path / "elsewhere")
    splits = load_splits(root)
    assert [splits.train.digest(i) for i in range(10)] == [splits.test.digest(i) for i in range(10)] == expected


def test_val_folder_is_taken_for_test(make_images):
    assert len(load_splits(make_images(test="val")).test) == 10


def test_files_that_are_no_images_are_ignored(make_images):
    root = make_images()
    (root / "train/cat/notes.txt").write_text("hello")
    (root / "train/cat/.hidden.png").write_bytes(b"")
    (root / "readme.md").write_text("hello")
    assert len(load_splits(root).train) == 10


def test_digest_is_of_the_pixels(make_images):
    root = make_images()
    png = load_splits(root).train
    digests = [png.digest(i) for i in range(10)]
    Image.open(root / "train/cat/000.png").save(root / "train/cat/000.bmp")
    (root / "train/cat/000.png").unlink()
    assert load_splits(root).train.digest(0) == digests[0]
    assert len(set(digests)) == 10


def test_small_augmentation_is_a_crop_of_the_padded_picture_or_its_mirror():
    rng = np.random.default_rng(0)
    pictures = rng.integers(1, 256, (30, 6, 7, 3), dtype=np.uint8)
    moved = SmallPictures((6, 7)).augmented(list(pictures), rng)
    mirrored = 0
    for before, after in zip(pictures, moved, strict=True):
        padded = np.pad(before, ((4, 4), (4, 4), (0, 0)))
        crops = [padded[top : top + 6, left : left + 7] for top in range(9) for left in range(9)]
        plain = any(np.array_equal(after, crop) for crop in crops)
        assert plain or any(np.array_equal(after, crop[:, ::-1]) for crop in crops)
        mirrored += not plain
    assert 5 < mirrored < 25


def test_large_pictures_are_resized_and_cropped_in_the_middle(make_images):
    split = load_splits(make_images(sizes=((300, 400), (80, 60), (256, 256)))).train
    assert split.input_shape == (3, 224, 224)
    assert split.inputs(np.arange(3)).shape == (3, 3, 224, 224)
    assert split.batch(np.arange(3), np.random.default_rng(0)).inputs.shape == (3, 3, 224, 224)
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 256, 3))
    kept = LargePictures().keep(Image.fromarray(ramp))
    assert LargePictures().plain([kept])[0, :, 0, 0].tolist() == list(range(16, 240))


def test_extreme_aspect_survives_training_crops():
    geometry = LargePictures()
    kept = geometry.keep(Image.new("RGB", (2000, 10)))
    assert kept.shape[0] == 256
    rng = np.random.default_rng(0)
    assert geometry.augmented([kept] * 8, rng).shape == (8, 224, 224, 3)


def test_cache_keeps_to_its_limit_and_survives_the_files(make_images):
    root = make_images()
    members = tuple(f"train/cat/{number:03d}.png" for number in range(5))
    index = Index(("cat",), members, np.zeros(5, np.int64))
    picture_bytes = 10 * 12 * 3
    split = ImageSplit(FolderSource(root), index, SmallPictures((10, 12)), cache_bytes=2 * picture_bytes)
    split.inputs(np.arange(5))
    shutil.rmtree(root / "train")
    assert split.inputs(np.array([0, 1])).shape == (2, 3, 10, 12)
    with pytest.raises(DataError, match=r"002\.png"):
        split.inputs(np.array([2]))


def test_missing_path_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="nowhere"):
        load_splits(tmp_path / "nowhere")


@pytest.mark.parametrize("missing", ["train", "test"])
def test_missing_split_says_what_is_there(make_images, missing):
    root = make_images()
    shutil.rmtree(root / missing)
    with pytest.raises(DataError, match=f"has no {missing}/<class>/.*only (train|test)"):
        load_splits(root)


def test_split_without_class_folders(make_images):
    root = make_images()
    shutil.rmtree(root / "train")
    (root / "train").mkdir()
    (root / "train/loose.png").write_bytes(b"")
    with pytest.raises(DataError, match="train/ has no class folders"):
        load_splits(root)


def test_empty_class_is_named(make_images):
    root = make_images()
    for path in (root / "test/dog").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="test/dog/ has no images"):
        load_splits(root)


def test_classes_must_agree(make_images):
    root = make_images(classes=("cat", "dog", "owl"))
    shutil.rmtree(root / "test/owl")
    with pytest.raises(DataError, match="owl"):
        load_splits(root)


def test_file_that_is_no_zip(tmp_path: Path):
    (tmp_path / "data.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match=r"data\.zip cannot be read as a zip"):
        load_splits(tmp_path / "data.zip")


def test_zip_with_a_broken_member(make_images, zip_folder):
    archive = zip_folder(make_images())
    with zipfile.ZipFile(archive) as opened:
        offset = opened.getinfo("train/cat/003.png").header_offset
    content = bytearray(archive.read_bytes())
    content[offset + 120] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"broken at train/cat/003\.png"):
        load_splits(archive).train.inputs(np.arange(5))


@pytest.mark.parametrize("number", [0, 3])
def test_unreadable_image_is_named(make_images, number):
    root = make_images()
    (root / f"train/dog/{number:03d}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=rf"train/dog/{number:03d}\.png is not a readable image"):
        load_splits(root).train.inputs(np.arange(10))


def test_truncated_image_is_named(make_images):
    root = make_images(sizes=((40, 40),))
    path = root / "train/dog/001.png"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"train/dog/001\.png"):
        load_splits(root).train.inputs(np.arange(10))


def test_small_images_of_different_sizes_at_once(make_images):
    root = make_images()
    Image.new("RGB", (9, 10)).save(root / "test/dog/000.png")
    with pytest.raises(DataError, match=r"must all have one size.*9x10"):
        load_splits(root)


def test_small_image_of_another_size_when_it_is_decoded(make_images):
    root = make_images()
    Image.new("RGB", (9, 10)).save(root / "train/dog/004.png")
    with pytest.raises(DataError, match=r"train/dog/004\.png is 10x9 pixels where the others are 10x12"):
        load_splits(root).train.inputs(np.arange(10))


@pytest.mark.parametrize("sizes", [((12, 10),), ((300, 80), (90, 100))], ids=["small", "large"])
def test_preprocessing_makes_of_a_file_what_evaluation_sees(make_images, sizes):
    root = make_images(sizes=sizes)
    split = load_splits(root).test
    said = json.loads(json.dumps(asdict(split.preprocessing)))
    preprocess = Preprocessing.from_json(said)
    assert preprocess == split.preprocessing
    for index, path in enumerate(sorted((root / "test/cat").iterdir())):
        np.testing.assert_array_equal(preprocess(Image.open(path)), split.inputs(np.array([index]))[0])
    assert preprocess(Image.new("L", (40, 300))).shape == split.input_shape

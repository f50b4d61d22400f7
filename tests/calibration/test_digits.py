import numpy as np
import pytest
from PIL import Image

from calibration.datasets import load_splits
from calibration.digits import DIGITS
from calibration.pictures import Normalisation


def test_sizes_and_classes_are_balanced_in_both_splits():
    splits = load_splits(None)
    assert (len(splits.train), len(splits.test)) == (1347, 450)
    assert splits.train.classes == splits.test.classes == tuple("0123456789")
    for split in (splits.train, splits.test):
        counts = np.bincount(split.labels)
        assert counts.max() - counts.min() <= 8


def test_train_inputs_are_normalised():
    split = load_splits(None).train
    inputs = split.inputs(np.arange(len(split)))
    assert inputs.shape == (1347, 1, 8, 8)
    assert inputs.dtype == np.float32
    assert abs(inputs.mean()) < 0.02
    assert inputs.std() == pytest.approx(1, abs=0.02)


def test_another_normalisation_is_used():
    plain = load_splits(None, Normalisation((0.0,), (1.0,), scale=16)).test.inputs(np.arange(450))
    assert plain.min() == 0
    assert plain.max() == 1


def test_augmentation_shifts_by_at_most_one_pixel_and_is_seeded():
    split = load_splits(None, Normalisation((0.0,), (1.0,), scale=16)).train
    plain = split.inputs(np.arange(50))[:, 0]
    moved = split.batch(np.arange(50), np.random.default_rng(3)).inputs[:, 0]
    padded = np.pad(plain, ((0, 0), (1, 1), (1, 1)))
    shifts = [padded[:, top : top + 8, left : left + 8] for top in range(3) for left in range(3)]
    assert all(any(np.array_equal(moved[i], shift[i]) for shift in shifts) for i in range(50))
    assert not np.array_equal(moved, plain)
    assert np.array_equal(moved, split.batch(np.arange(50), np.random.default_rng(3)).inputs[:, 0])


def test_splits_are_the_same_every_time():
    first, second = load_splits(None).train, load_splits(None).train
    assert [first.digest(i) for i in range(20)] == [second.digest(i) for i in range(20)]


def test_a_digit_saved_as_an_image_is_preprocessed_to_the_same_input():
    split = load_splits(None).test
    normalised = split.inputs(np.arange(4))
    pixels = (normalised[:, 0] * DIGITS.std[0] + DIGITS.mean[0]) * 255
    for index in range(4):
        image = Image.fromarray(pixels[index].round().astype(np.uint8))
        np.testing.assert_allclose(split.preprocessing(image), normalised[index], atol=0.006)

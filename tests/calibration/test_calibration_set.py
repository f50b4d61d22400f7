import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.calibration_set import CalibrationSamples, content_digest, draw_calibration_set, labels_digest
from calibration.datasets import Labelled, Splits, load_splits
from calibration.errors import DataError


class Numbers(Labelled):
    """Samples that are one number each; equal numbers are equal samples."""

    input_shape: tuple[int, ...] = (1,)

    def __init__(self, values, labels, classes=3):
        self.values = np.asarray(values, np.float32)
        self.labels = self.strata = np.asarray(labels, np.int64)
        self.classes = tuple(str(c) for c in range(classes))

    def __len__(self):
        return len(self.labels)

    def inputs(self, indices):
        return self.values[indices][:, None]

    def digest(self, index):
        return hashlib.sha256(self.values[index].tobytes()).hexdigest()


def test_same_seed_same_set_and_another_seed_another():
    splits = load_splits(None)
    first, second, other = (draw_calibration_set(splits, 100, seed) for seed in (1, 1, 2))
    assert first == second
    assert first.indices != other.indices
    assert first.sha256 != other.sha256
    assert first.samples(splits.train)[:].shape == (100, 1, 8, 8)


def test_classes_have_equal_shares():
    splits = load_splits(None)
    drawn = draw_calibration_set(splits, 104, 0)
    counts = np.bincount(splits.train.labels[list(drawn.indices)])
    assert sorted(counts) == [10] * 6 + [11] * 4


@settings(max_examples=60)
@given(st.data())
def test_never_held_out_and_as_balanced_as_can_be(data):
    train = data.draw(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), min_size=1, max_size=40))
    test = data.draw(st.lists(st.integers(0, 30), max_size=8))
    values, labels = zip(*train, strict=True)
    splits = Splits("toy", Numbers(values, labels), Numbers(test, [0] * len(test)))
    free = [i for i, value in enumerate(values) if value not in test]
    if not free:
        with pytest.raises(DataError, match="has 0 training samples"):
            draw_calibration_set(splits, 1, 0)
        return
    size = data.draw(st.integers(1, len(free)))
    drawn = draw_calibration_set(splits, size, 0)
    assert len(set(drawn.indices)) == size
    assert set(drawn.indices) <= set(free)
    have = np.bincount([labels[i] for i in free], minlength=3)
    got = np.bincount([labels[i] for i in drawn.indices], minlength=3)
    unfinished = got < have
    assert not unfinished.any() or got.max() <= got[unfinished].min() + 1
    with pytest.raises(DataError, match=f"{len(free)} training samples"):
        draw_calibration_set(splits, len(free) + 1, 0)


@pytest.mark.parametrize("size", [0, -1])
def test_size_must_be_positive(size):
    with pytest.raises(DataError, match="at least one"):
        draw_calibration_set(load_splits(None), size, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_inputs_are_named(bad):
    splits = Splits("toy", Numbers([1, bad, 3], [0, 1, 2]), Numbers([9], [0]))
    with pytest.raises(DataError, match="1 calibration samples hold NaN or infinity, the first is 1"):
        draw_calibration_set(splits, 3, 0).samples(splits.train)[:]


def test_changed_data_is_noticed():
    splits = Splits("toy", Numbers([1, 2, 3], [0, 1, 2]), Numbers([9], [0]))
    drawn = draw_calibration_set(splits, 3, 0)
    with pytest.raises(DataError, match="changed"):
        drawn.samples(Numbers([1, 2, 4], [0, 1, 2]))
    with pytest.raises(DataError, match="names sample 2 of 2"):
        drawn.samples(Numbers([1, 2], [0, 1]))


@pytest.mark.parametrize("kept_bytes", [0, 2**20])
def test_samples_come_in_the_order_that_was_asked_for_and_only_small_ones_stay(monkeypatch, kept_bytes):
    monkeypatch.setattr("calibration.calibration_set.KEPT_BYTES", kept_bytes)
    train = Numbers(range(10), [0] * 10)
    read = []
    train.inputs = lambda indices: read.append(len(indices)) or Numbers.inputs(train, indices)
    drawn = draw_calibration_set(Splits("toy", train, Numbers([99], [0])), 10, 0)
    order = np.array([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])
    samples = drawn.samples(train, order)
    assert samples[:].ravel().tolist() == order.tolist()
    read.clear()
    assert samples[np.array([2, 0])].ravel().tolist() == [4, 3]
    batches = samples.batches(4)
    for _ in range(2):
        assert [batch.ravel().tolist() for batch in batches] == [[3, 1, 4, 0], [5, 9, 2], [6, 8, 7]]
    assert len(batches) == 3
    assert [batch.ravel().tolist() for batch in samples.batches(2, np.array([9, 0, 1]))] == [[7, 3], [1]]
    assert max(read, default=0) == (0 if kept_bytes else 4)


def test_no_batch_is_left_with_a_single_sample():
    samples = CalibrationSamples(Numbers(range(300), [0] * 300), np.arange(257))
    batches = samples.batches(128)
    assert [len(batch) for batch in batches] == [86, 86, 85]
    assert len(batches) == 3
    assert torch.equal(torch.cat(list(batches)), torch.from_numpy(samples[:]))
    assert list(samples.batches(128, np.arange(0))) == []


def test_other_samples_or_other_labels_are_other_data():
    whole = content_digest(Numbers([1, 2, 3], [0, 1, 2]))
    assert whole == content_digest(Numbers([1, 2, 3], [0, 1, 2]))
    assert whole != content_digest(Numbers([1, 2, 4], [0, 1, 2]))
    assert whole != content_digest(Numbers([1, 2, 3], [0, 1, 1]))
    assert whole != content_digest(Numbers([2, 1, 3], [1, 0, 2]))
    assert labels_digest(Numbers([1, 2, 3], [0, 1, 2])) == labels_digest(Numbers([9, 2, 3], [0, 1, 2]))
    assert labels_digest(Numbers([1, 2, 3], [0, 1, 2])) != labels_digest(Numbers([1, 2, 3], [0, 2, 2]))

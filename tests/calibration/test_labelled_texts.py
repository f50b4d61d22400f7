"""Texts with classes become token sequences with the network's class numbers."""

import numpy as np
import pytest

from calibration.errors import DataError
from calibration.labelled_texts import labelled_splits

NAMES = ("negative", "positive")


def _write(folder, train, dev=None):
    (folder / "train.csv").write_text(train)
    if dev:
        (folder / "dev.csv").write_text(dev)
    return folder


def test_texts_are_padded_cut_and_labelled(tmp_path, encoder):
    data = _write(tmp_path, "label,text\n1,good dog\nNegative,bad\n", "text,label\n" + "fox " * 40 + ",positive\n")
    train, test = labelled_splits(data, encoder, NAMES)
    assert train.classes == NAMES
    assert train.labels.tolist() == train.strata.tolist() == [1, 0]
    batch = train.batch(np.array([1, 0]), np.random.default_rng(0))
    assert batch.inputs.shape == (2, 3, 12)
    assert batch.inputs.dtype == np.int64
    assert batch.labels.tolist() == [0, 1]
    assert train.inputs(np.arange(2))[:, 1].sum(axis=1).tolist() == [4, 3]  # with the two special tokens
    assert test.inputs(np.arange(1))[0, 1].sum() == 12
    assert train.digest(0) != train.digest(1)


def test_numbers_that_are_the_classes_names_are_no_places_among_them(tmp_path, encoder):
    stars = ("1", "2", "3")
    train, _ = labelled_splits(_write(tmp_path, "text,label\nfox,3\ndog,1\n", "text,label\na,2\n"), encoder, stars)
    assert train.labels.tolist() == [2, 0]
    with pytest.raises(DataError, match=r"labels 0, which.*write these names, or give --weights"):
        labelled_splits(_write(tmp_path, "text,label\nfox,0\n", "text,label\na,2\n"), encoder, stars)


def test_pairs_of_texts_share_a_sequence(tmp_path, encoder):
    train, _ = labelled_splits(
        _write(tmp_path, "text,text2,label\nfox,dog,0\ndog,fox,1\nfox,a dog,1\n"), encoder, NAMES
    )
    (ids, mask, types) = train.inputs(np.arange(1))[0]
    first, second = np.flatnonzero(types), np.flatnonzero((types == 0) & (mask == 1))
    assert len(first) >= 2
    assert second.tolist() == [0, 1, 2]
    assert ids[0] == 2


def test_one_file_is_split_by_its_texts_and_never_both_ways(tmp_path, encoder):
    rows = "".join(f"fox {'dog ' * (n % 7)}{'a ' * (n // 7)},{n % 2}\n" for n in range(20))
    train, test = labelled_splits(_write(tmp_path, "text,label\n" + rows + rows), encoder, NAMES)
    assert (len(train), len(test)) == (30, 10)
    assert not {train.digest(i) for i in range(30)} & {test.digest(i) for i in range(10)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,class\nfox,1\n", "no column label"),
        ("sentence,class\nfox,1\n", "no column text and no column label, only: sentence, class"),
        ("text,label\n", "no rows under its header"),
        ("text,label\n ,1\n", "row 2 has an empty text"),
        ("text,label\nfox,2\nfox,neutral\n", "2, neutral.*2 classes: negative, positive.*0 to 1"),
    ],
)
def test_bad_files_say_what_is_needed(tmp_path, encoder, content, said):
    data = _write(tmp_path, content, "text,label\nfox,1\n")
    with pytest.raises(DataError, match=said) as caught:
        labelled_splits(data, encoder, NAMES)
    assert caught.value.exit_code == 2

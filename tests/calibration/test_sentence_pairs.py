"""Pairs of sentences become single sentences that remember their partners."""

import numpy as np
import pytest

from calibration.calibration_set import draw_calibration_set
from calibration.datasets import Splits
from calibration.errors import DataError
from calibration.sentence_pairs import read_pairs, sentence_splits

TRAIN = "a fox,a dog,5.0\nthe lazy dog,the fox,0\na good dog,a bad dog,2.5\n"
DEV = "a fox,the quick fox,4\nlazy,bad,1\n"


def _write(folder, train=TRAIN, dev=DEV):
    (folder / "train.csv").write_text(train)
    (folder / "dev.csv").write_text(dev)
    return folder


def test_a_sample_is_a_sentence_and_trains_with_its_partner(tmp_path, encoder):
    train, test = sentence_splits(_write(tmp_path), encoder)
    assert (len(train), len(test), train.input_shape) == (6, 4, (3, 12))
    assert test.scores.tolist() == pytest.approx([0.8, 0.2])
    batch = train.batch(np.array([3, 4]), np.random.default_rng(0))
    assert np.array_equal(batch.inputs, train.inputs(np.array([3, 2, 4, 5])))
    assert batch.labels.tolist() == [0, 0, 0.5, 0.5]


def test_sentences_of_the_evaluation_never_calibrate(tmp_path, encoder):
    splits = Splits("sts", *sentence_splits(_write(tmp_path), encoder))
    chosen = draw_calibration_set(splits, 5, seed=0)
    assert 0 not in chosen.indices  # "a fox" is in both
    with pytest.raises(DataError, match="Ask for fewer"):
        draw_calibration_set(splits, 6, seed=0)


def test_columns_are_found_by_name_or_by_place(tmp_path):
    (tmp_path / "glue.tsv").write_text("index\tscore\tsentence2\tsentence1\n0\t3.5\tb\ta\n")
    (tmp_path / "bare.csv").write_text("a,b,3.5\n")
    (glue,), (bare,) = read_pairs(tmp_path / "glue.tsv"), read_pairs(tmp_path / "bare.csv")
    assert glue == bare
    assert (bare.first, bare.second, bare.score) == ("a", "b", 3.5)


def test_one_file_is_split_by_its_pairs_and_never_both_ways(tmp_path, encoder):
    (tmp_path / "all.csv").write_text("".join(f"fox {'dog ' * n},lazy,{n % 6}\n" for n in range(9)) * 2)
    train, test = sentence_splits(tmp_path / "all.csv", encoder)
    assert (len(train), len(test)) == (2 * 14, 2 * 4)
    assert not {train.digest(i) for i in range(0, 28, 2)} & {test.digest(i) for i in range(0, 8, 2)}


@pytest.mark.parametrize(
    ("dev", "said"),
    [
        ("a,b,six\n", "row 1 has the score 'six'"),
        ("a,b,5.1\n", "from 0 to 5"),
        ("a,b,nan\n", "from 0 to 5"),
        ("a, ,1\n", "row 1 has an empty sentence"),
        ("a,b\n", "2 columns and none called sentence1"),
        ("a,b,1\nc,d,1\n", "all have one score"),
    ],
)
def test_bad_files_say_what_is_needed(tmp_path, encoder, dev, said):
    with pytest.raises(DataError, match=said):
        sentence_splits(_write(tmp_path, dev=dev), encoder)

"""Which files belong to which split, and how tables are read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import DataError
from calibration.text_files import find_files, held_out, read_rows


def _touch(folder, *names):
    for name in names:
        (folder / name).write_text("x\n")


def test_a_folder_has_one_file_for_each_split(tmp_path):
    _touch(tmp_path, "train-v1.1.json", "dev-v1.1.json", "test.json", "notes.txt")
    files = find_files(tmp_path, (".json",), "questions")
    assert (files.train.name, files.test.name) == ("train-v1.1.json", "dev-v1.1.json")


def test_a_single_file_is_taken_for_both_splits(tmp_path):
    _touch(tmp_path, "all.csv")
    for data in (tmp_path, tmp_path / "all.csv"):
        files = find_files(data, (".csv", ".tsv"), "texts")
        assert (files.train.name, files.test) == ("all.csv", None)


@pytest.mark.parametrize(
    ("names", "asked", "said"),
    [
        ((), "", "no .csv file"),
        (("train.csv", "more.csv"), "", "no pair of train"),
        (("train.json",), "train.json", "is no .csv file"),
        ((), "elsewhere", "There is no data"),
    ],
)
def test_other_files_are_refused_with_what_is_wanted(tmp_path, names, asked, said):
    _touch(tmp_path, *names)
    with pytest.raises(DataError, match=f"{said}.*train"):
        find_files(tmp_path / asked, (".csv",), "texts")


@given(st.sets(st.text(), min_size=2, max_size=40), st.randoms())
def test_a_quarter_is_held_out_whatever_the_order(keys, random):
    ordered = sorted(keys)
    random.shuffle(ordered)
    chosen = held_out(ordered)
    assert chosen == held_out(sorted(keys))
    assert len(chosen) == max(1, round(len(keys) / 4))


def test_one_key_cannot_be_split():
    with pytest.raises(DataError, match="train"):
        held_out(["same", "same"])


def test_tables_quote_in_csv_and_do_not_in_tsv(tmp_path):
    (tmp_path / "t.csv").write_text('\ufeff"one, two",3\n\n"say ""hi""",4\n', encoding="utf-8")
    assert read_rows(tmp_path / "t.csv") == [["one, two", "3"], ['say "hi"', "4"]]
    (tmp_path / "t.tsv").write_text('"open\t1\nb\t2\n')
    assert read_rows(tmp_path / "t.tsv") == [['"open', "1"], ["b", "2"]]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a,b\nc\n", "row 2 has 1 fields"), (b"", "no rows"), (b"\xff\xfe,1\n", "UTF-8"), (b'"a,b\n', "cannot be read")],
)
def test_broken_tables_are_refused(tmp_path, content, said):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / "t.csv")

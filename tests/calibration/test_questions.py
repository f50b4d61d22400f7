"""SQuAD files become windows in which every answer can be found again."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from calibration.errors import DataError
from calibration.questions import question_splits, read_squad
from calibration.tokens import TextEncoder

DATA = os.environ.get("SPDY_DATA")
CONTEXT = "the quick fox jumps over a lazy dog. " * 6 + "a good fox sees the brown dog. " + "bad dog, lazy fox. " * 5


def _squad(*paragraphs):
    entries = [
        {"context": context, "qas": [{"id": f"q{n}", "question": "who sees the dog?", "answers": answers}]}
        for n, (context, answers) in enumerate(paragraphs)
    ]
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": entries}]})


def _answer(text, context=CONTEXT):
    return [{"text": text, "answer_start": context.index(text)}]


def _write(folder, *paragraphs, name="all.json"):
    (folder / name).write_text(_squad(*paragraphs))
    return folder / name


@pytest.fixture
def long_encoder(encoder):
    return TextEncoder(encoder.tokenizer, 32, encoder.names)


def test_long_contexts_are_cut_into_windows_that_overlap(tmp_path, long_encoder):
    _write(tmp_path, (CONTEXT, _answer("a good fox")), name="train.json")
    _write(tmp_path, ("the dog", []), name="dev.json")
    train, test = question_splits(tmp_path, long_encoder)
    characters = train.windows.characters
    assert train.input_shape == (3, 32)
    assert len(train) > 3
    covered = {int(c) for window in characters for c in window[window[:, 0] >= 0, 0]}
    assert covered == {word.start() for word in re.finditer(r"\w+|[.,]", CONTEXT)}
    ends, starts = characters[:-1].max(axis=(1, 2)), np.where(characters >= 0, characters, 10**6)[1:].min(axis=(1, 2))
    assert (starts < ends).all()
    whole = np.flatnonzero(train.labels[:, 0])
    assert len(whole)
    for window in whole:
        first, last = train.labels[window]
        assert CONTEXT[characters[window, first, 0] : characters[window, last, 1]] == "a good fox"
    assert test.labels.tolist() == [[0, 0]]


def test_long_questions_are_cut(tmp_path, long_encoder):
    content = json.loads(_squad((CONTEXT, [])))
    content["data"][0]["paragraphs"][0]["qas"][0]["question"] = "who sees the dog " * 50
    (tmp_path / "train.json").write_text(json.dumps(content))
    _write(tmp_path, ("the dog", []), name="dev.json")
    train, _ = question_splits(tmp_path, long_encoder)
    types, mask = train.inputs(np.arange(len(train)))[:, 2], train.inputs(np.arange(len(train)))[:, 1]
    assert ((types == 0) & (mask == 1)).sum(axis=1).tolist() == [18] * len(train)  # 16 and two special tokens


def test_one_file_is_split_by_context(tmp_path, long_encoder):
    paragraphs = [(f"fox {'dog ' * (n // 2)}sees", []) for n in range(16)]
    train, test = question_splits(_write(tmp_path, *paragraphs), long_encoder)
    assert (len(train.questions), len(test.questions)) == (12, 4)
    assert not {q.context for q in train.questions} & {q.context for q in test.questions}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([{"text": "a good fox", "answer_start": 3}], "'a good fox' to question q0 is not at character 3.*begins at"),
        ([{"text": "an owl", "answer_start": 0}], "is nowhere in it"),
        ([{"text": "", "answer_start": 0}], "is nowhere in it"),
        ([{"text": "fox"}], r"not in SQuAD's format \(KeyError: 'answer_start'\)"),
    ],
)
def test_answers_that_are_not_in_the_context_are_refused(tmp_path, answers, said):
    with pytest.raises(DataError, match=said):
        read_squad(_write(tmp_path, (CONTEXT, answers)))


@pytest.mark.parametrize(
    ("content", "said"), [("{", "as JSON"), ("[]", "not in SQuAD's format"), ('{"data": []}', "no questions")]
)
def test_other_files_are_refused(tmp_path, content, said):
    (tmp_path / "all.json").write_text(content)
    with pytest.raises(DataError, match=said):
        read_squad(tmp_path / "all.json")


def test_too_short_sequences_are_refused(tmp_path, encoder):
    with pytest.raises(DataError, match="--input-size 32 or more"):
        question_splits(_write(tmp_path, (CONTEXT, [])), encoder)


@pytest.mark.skipif(DATA is None, reason="SPDY_DATA is not set")
def test_real_questions_keep_their_answers(minilm):
    from transformers import AutoTokenizer

    encoder = TextEncoder(AutoTokenizer.from_pretrained(minilm), 384, ("input_ids", "attention_mask", "token_type_ids"))
    train, test = question_splits(Path(DATA or "") / "squad" / "xquad.en.json", encoder)
    assert len(train.questions) + len(test.questions) == 1190
    assert not {q.context for q in train.questions} & {q.context for q in test.questions}
    found = 0
    for split in (train, test):
        for window, (first, last) in enumerate(split.labels):
            if first:
                question = split.questions[split.windows.question[window]]
                start, end = split.windows.characters[window, first, 0], split.windows.characters[window, last, 1]
                text, _ = question.answers[0]
                found += question.context[start:end] == text
    assert found >= 1189  # one answer ends inside of a token

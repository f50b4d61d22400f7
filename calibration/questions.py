"""Questions about texts, in SQuAD's format: long texts in windows that overlap."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import ArraySplit
from calibration.datasets import Truth, some_of
from calibration.errors import DataError
from calibration.text_files import divide, find_files
from calibration.tokens import CHUNK, TextEncoder, Tokens

LONGEST_QUESTION = 64
"""Tokens; longer questions are cut (Devlin et al., 2019)."""
SHORTEST_LENGTH = 32
"""Tokens of a sequence that has room for a question and a window."""
SHARED = 3
"""Neighbouring windows share one in so many of a sequence's tokens, as 128 of 384 (Devlin et al., 2019)."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    Args:
        id: of the question in its file.
        text: of the question.
        context: where the answer is to be found.
        answers: (text, first character in the context), all of them right; empty where there is no answer.
    """

    id: str
    text: str
    context: str
    answers: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Windows:
    """Sequences of a question and a part of its context.

    Args:
        tokens: [n, k, length].
        characters: [n, length, 2] first and last + 1 character of each token in the context, -1 outside of it.
        question: [n] index of the question that each window belongs to.
    """

    tokens: Tokens
    characters: NDArray[np.int32]
    question: NDArray[np.int64]


class QuestionSplit(ArraySplit):
    """Windows, one a sample; labels [n, 2] are the tokens where the first answer begins and ends.

    Where the answer is not in the window, both are 0, which is the sequence's first token.

    Args:
        questions: what the windows are of.
        windows: of all questions, in their order.
    """

    def __init__(self, questions: Sequence[Question], windows: Windows) -> None:
        super().__init__(windows.tokens, _answer_tokens(questions, windows), dtype=np.int64)
        self.questions = tuple(questions)
        self.windows = windows

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """All windows of random questions."""
        return np.flatnonzero(np.isin(self.windows.question, some_of(count, len(self.questions), rng)))

    def truth(self, indices: NDArray[np.int64]) -> Truth:
        """What it takes to read answers out of the windows and to judge them.

        ``question`` [n] that each window belongs to, ``characters`` [n, length, 2] of its tokens, and the questions'
        ``contexts`` and ``answers``, the latter as lists of texts in JSON.
        """
        numbers, question = np.unique(self.windows.question[indices], return_inverse=True)
        asked = [self.questions[number] for number in numbers]
        return {
            "question": question,
            "characters": self.windows.characters[indices],
            "contexts": np.array([one.context for one in asked]),
            "answers": np.array([json.dumps([text for text, _ in one.answers]) for one in asked]),
        }


def question_splits(data: Path, encoder: TextEncoder) -> tuple[QuestionSplit, QuestionSplit]:
    """The train and test splits of SQuAD files; one file alone is split such that no context is in both.

    Args:
        data: a JSON file in SQuAD's format (version 1.1 or 2.0), or a folder as `find_files` takes.
        encoder: makes sequences of questions and windows.

    Raises:
        DataError: a file is missing or of another format, an answer is not in its context, or the encoder's sequences
            are too short for windows.
    """
    if encoder.length < SHORTEST_LENGTH:
        raise DataError(
            f"Sequences of {encoder.length} tokens have no room for a question and a part of its context: "
            f"give --input-size {SHORTEST_LENGTH} or more"
        )
    files = find_files(data, (".json",), "questions in SQuAD's format")
    train = read_squad(files.train)
    train, test = (train, read_squad(files.test)) if files.test else divide(train, lambda question: question.context)
    return (
        QuestionSplit(train, cut_windows(train, encoder)),
        QuestionSplit(test, cut_windows(test, encoder)),
    )


def read_squad(path: Path) -> list[Question]:
    """Questions of a file in SQuAD's format.

    Raises:
        DataError: the file is of another format, or an answer is not where it says that it is.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        questions = list(_questions(content))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not in SQuAD's format ({type(error).__name__}: {error}): it needs data → paragraphs → context "
            "and qas → id, question, answers → text, answer_start"
        ) from error
    if not questions:
        raise DataError(f"{path} has no questions")
    for question in questions:
        _check_answers(path, question)
    return questions


def cut_windows(questions: Sequence[Question], encoder: TextEncoder) -> Windows:
    """All windows of all questions; neighbouring ones share a third of a sequence.

    Args:
        questions: longer ones than half a sequence, or than `LONGEST_QUESTION`, are cut.
        encoder: makes the sequences.
    """
    length, limit = encoder.length, longest_question(encoder.length)
    tokens = [np.empty((0, len(encoder.names), length), np.int32)]
    characters, question = [np.empty((0, length, 2), np.int32)], [np.empty(0, np.int64)]
    for start in range(0, len(questions), CHUNK):
        part = questions[start : start + CHUNK]
        encoded = encoder.tokenizer(
            _cut([q.text for q in part], encoder, limit),
            [q.context for q in part],
            padding="max_length",
            truncation="only_second",
            max_length=length,
            stride=length // SHARED,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=True,
        )
        count = len(encoded["input_ids"])
        inside = np.array([[piece == 1 for piece in encoded.sequence_ids(row)] for row in range(count)])
        tokens.append(encoder.stacked(encoded))
        characters.append(np.where(inside[..., None], np.asarray(encoded["offset_mapping"], np.int32), np.int32(-1)))
        question.append(start + np.asarray(encoded["overflow_to_sample_mapping"], np.int64))
    return Windows(np.concatenate(tokens), np.concatenate(characters), np.concatenate(question))


def longest_question(length: int) -> int:
    """Tokens that a question keeps in sequences of ``length`` tokens."""
    return min(LONGEST_QUESTION, length // 2)


def _questions(content: Mapping[str, Any]) -> Iterator[Question]:
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                answers = tuple((str(a["text"]), int(a["answer_start"])) for a in entry["answers"])
                yield Question(str(entry["id"]), str(entry["question"]), str(paragraph["context"]), answers)


def _check_answers(path: Path, question: Question) -> None:
    for text, start in question.answers:
        if not text or question.context[start : start + len(text)] != text:
            found = question.context.find(text)
            where = f"begins at character {found}" if text and found >= 0 else "is nowhere in it"
            raise DataError(
                f"{path}: the answer {text[:40]!r} to question {question.id} is not at character {start} of its "
                f"context; it {where}. Correct answer_start or the text, or remove the question"
            )


def _cut(texts: Sequence[str], encoder: TextEncoder, limit: int) -> list[str]:
    """Texts without what exceeds ``limit`` tokens, and without the blanks around them."""
    encoded = encoder.tokenizer(
        list(texts), add_special_tokens=False, truncation=True, max_length=limit, return_offsets_mapping=True
    )
    ends = [offsets[-1][1] if offsets else 0 for offsets in encoded["offset_mapping"]]
    return [text[:end].strip() for text, end in zip(texts, ends, strict=True)]


def _answer_tokens(questions: Sequence[Question], windows: Windows) -> NDArray[np.int64]:
    """[n, 2] first and last token of the first answer in each window, zeros where it is not whole in it."""
    answers = [question.answers[0] if question.answers else ("", -1) for question in questions]
    begin = np.array([start for _, start in answers])[windows.question, None]
    end = begin + np.array([len(text) for text, _ in answers])[windows.question, None]
    first, last = windows.characters[..., 0], windows.characters[..., 1]
    starts = (first >= 0) & (first <= begin) & (begin < last)
    ends = (first >= 0) & (first < end) & (end <= last)
    whole = starts.any(axis=1) & ends.any(axis=1)
    return np.where(whole[:, None], np.stack([starts.argmax(axis=1), ends.argmax(axis=1)], axis=1), 0)

"""Answers are found over windows and scored as SQuAD's official script scores them."""

import numpy as np
import pytest

from calibration.questions import Question, Windows
from pipeline.scoring.answers import best_answers, exact_match, f1

CONTEXT = "one two three four"


def _question(*answers: str) -> Question:
    return Question("q", "?", CONTEXT, tuple((answer, 0) for answer in answers))


@pytest.mark.parametrize(
    ("answer", "right", "exact", "harmonic"),
    [
        ("The Cat!", ("cat",), 1, 1),
        ("a cat", ("the dog", "cat"), 1, 1),
        ("black cat", ("cat",), 0, 2 / 3),
        ("cat cat", ("cat",), 0, 2 / 3),
        ("cat", ("dog", "a very black cat"), 0, 0.5),
        ("U.S.", ("us",), 1, 1),
        ("", ("cat",), 0, 0),
        ("", (), 1, 1),
        ("cat", (), 0, 0),
    ],
)
def test_scores_follow_the_official_rules(answer, right, exact, harmonic):
    assert exact_match(answer, _question(*right)) == exact
    assert f1(answer, _question(*right)) == pytest.approx(harmonic)


def _windows(*questions: int) -> Windows:
    """Sequences of [CLS] ? [SEP] and two words of the context: its first two, then the other two, in turn."""
    halves = [[(0, 3), (4, 7)], [(8, 13), (14, 18)]]
    characters = [[(-1, -1)] * 3 + halves[index % 2] for index in range(len(questions))]
    empty = np.zeros((len(questions), 3, 5), np.int32)
    return Windows(empty, np.array(characters, np.int32), np.array(questions))


def _logits(*windows) -> np.ndarray:
    return np.array(windows, np.float32)


LOW = [0, 0]


def test_the_best_span_over_all_windows_wins_and_begins_before_it_ends():
    question = _question("three four")
    first = [LOW, [9, 9], LOW, [1, 2], [3, 0]]  # best allowed: one to one (3), two to two (3), not two to one (5)
    second = [LOW, LOW, LOW, [2, 0], [0, 2]]
    assert best_answers([question], _windows(0, 0), _logits(first, second)) == ["three four"]
    assert best_answers([question], _windows(0, 0), _logits(first, [LOW] * 5)) == ["one"]


def test_questions_stay_unanswered_only_where_some_have_no_answer():
    sure_of_nothing = [[5, 5], LOW, LOW, [1, 1], LOW]
    answered, unanswerable = _question("one"), _question()
    logits = _logits(sure_of_nothing, [[9, 9]] + [LOW] * 4)
    assert best_answers([answered, answered], _windows(0, 1), logits) == ["one", "three"]
    assert best_answers([answered, unanswerable], _windows(0, 1), logits) == ["", ""]


def test_spans_are_short():
    words = [(i, i + 1) for i in range(40)]
    windows = Windows(np.zeros((1, 3, 40), np.int32), np.array([words], np.int32), np.array([0]))
    logits = np.zeros((1, 40, 2), np.float32)
    logits[0, 0, 0] = logits[0, 39, 1] = 5
    logits[0, 29, 1] = 4
    (answer,) = best_answers([Question("q", "?", "x" * 40, ())] * 1, windows, logits)
    assert len(answer) == 30

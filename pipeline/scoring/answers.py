"""Answers to questions: found in a network's logits, and scored by SQuAD's official rules."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.questions import Question, Windows

LONGEST_ANSWER = 30
"""Tokens (Devlin et al., 2019)."""


@dataclass(frozen=True, slots=True)
class Span:
    """The best span of one question's context.

    Args:
        score: of its first and last token.
        first: character of the context at which it begins.
        end: the first character behind it.
        unanswered: score of the first token of a sequence, which stands for no answer; the lowest of all windows.
    """

    score: float
    first: int
    end: int
    unanswered: float


def best_spans(windows: Windows, count: int, logits: NDArray[np.float32]) -> list[Span]:
    """The best span of each of ``count`` questions over all of its windows.

    Args:
        windows: of all questions.
        count: number of the questions.
        logits: [n, length, 2] of every token's being the first and the last of the answer.
    """
    best = [Span(-np.inf, 0, 0, np.inf)] * count
    for index, (window, characters) in enumerate(zip(logits, windows.characters, strict=True)):
        number = int(windows.question[index])
        score, first, last = _best_span(window, characters[:, 0] >= 0)
        unanswered = min(best[number].unanswered, float(window[0].sum()))
        if score > best[number].score:
            best[number] = Span(score, int(characters[first, 0]), int(characters[last, 1]), unanswered)
        else:
            best[number] = replace(best[number], unanswered=unanswered)
    return best


def best_answers(questions: Sequence[Question], windows: Windows, logits: NDArray[np.float32]) -> list[str]:
    """The answer of each question: the best span of its context over all of its windows.

    A question may be left unanswered, with an empty text, where any of the questions has no answer: that is where the
    first token, which stands for it, scores higher in every window than all spans in it (Devlin et al., 2019).

    Args:
        questions: that were asked.
        windows: of all of them.
        logits: [n, length, 2] of every token's being the first and the last of the answer.
    """
    may_be_empty = any(not question.answers for question in questions)
    return [
        "" if may_be_empty and span.unanswered > span.score else question.context[span.first : span.end]
        for question, span in zip(questions, best_spans(windows, len(questions), logits), strict=True)
    ]


def exact_match(answer: str, question: Question) -> float:
    """1 if the answer is one of the right ones, up to case, punctuation, articles and blanks."""
    return max(float(_normalised(answer) == _normalised(right)) for right in _right(question))


def f1(answer: str, question: Question) -> float:
    """Harmonic mean of precision and recall of the answer's words, for the right answer where it is largest."""
    return max(_f1(_normalised(answer).split(), _normalised(right).split()) for right in _right(question))


def _best_span(logits: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[float, int, int]:
    """Score, first and last token of the best span of at most `LONGEST_ANSWER` tokens that are ``inside``."""
    tokens = np.flatnonzero(inside)
    if not len(tokens):
        return -np.inf, 0, 0
    starts, ends = logits[tokens, 0], logits[tokens, 1]
    scores = starts[:, None] + ends[None, :]
    spans = np.tri(len(tokens), k=LONGEST_ANSWER - 1, dtype=bool) & ~np.tri(len(tokens), k=-1, dtype=bool)
    first, last = divmod(int(np.where(spans, scores, -np.inf).argmax()), len(tokens))
    return float(scores[first, last]), int(tokens[first]), int(tokens[last])


def _right(question: Question) -> list[str]:
    """Right answers; as by the rules, one that has no words but articles counts where there is no other."""
    return [text for text, _ in question.answers if _normalised(text)] or [""]


def _normalised(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous blanks."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


def _f1(answer: Sequence[str], right: Sequence[str]) -> float:
    if not answer or not right:
        return float(answer == right)
    common = sum((Counter(answer) & Counter(right)).values())
    return 2 * common / (len(answer) + len(right))

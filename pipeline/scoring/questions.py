"""Question answering: is the span that a network finds one of the right answers?"""

import json
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Truth
from calibration.questions import Question, Windows
from pipeline.certification.accuracy import Score
from pipeline.scoring.answers import best_answers, exact_match, f1


class QuestionScorer:
    """SQuAD's F1; an input is a window of a question's context. Implements `pipeline.scoring.base.Scorer`."""

    keys: Mapping[str, str] = {
        "question": "[n] which question each input asks",
        "characters": "[n, length, 2] first and last + 1 character of each token in the context, -1 outside of it",
        "contexts": "[questions] texts",
        "answers": "[questions] the right ones as a list in JSON, empty where there is none",
    }
    optional: frozenset[str] = frozenset()

    def problem(self, truth: Truth, rows: int) -> str | None:
        """Windows and questions name each other."""
        question, characters = truth["question"], truth["characters"]
        contexts, answers = truth["contexts"], truth["answers"]
        if question.shape != (rows,) or characters.shape[::2] != (rows, 2) or contexts.shape != answers.shape:
            shapes = ", ".join(f"{name} {array.shape}" for name, array in truth.items())
            return f"{rows} inputs and {shapes}"
        if set(question.tolist()) != set(range(len(contexts))):
            return f"questions that are not those from 0 to {len(contexts) - 1}"
        try:
            lists = [json.loads(text) for text in answers.tolist()]
        except (TypeError, ValueError) as error:
            return f"answers that are no JSON ({error})"
        fits = all(isinstance(some, list) and all(isinstance(text, str) for text in some) for some in lists)
        return None if fits else "answers that are no lists of texts"

    def score(self, outputs: Iterable[NDArray[np.float32]], truth: Truth, metric: str) -> Score:
        """F1 by SQuAD's rules for logits [n, length, 2]; exact match is given beside it."""
        pairs = zip(truth["contexts"].tolist(), truth["answers"].tolist(), strict=True)
        questions = [Question("", "", text, tuple((right, 0) for right in json.loads(some))) for text, some in pairs]
        logits = np.concatenate(list(outputs))
        no_tokens = np.empty((len(logits), 0, 0), np.int32)  # they have been read
        windows = Windows(no_tokens, truth["characters"], truth["question"])
        found = best_answers(questions, windows, logits)
        scores = np.array([f1(answer, question) for answer, question in zip(found, questions, strict=True)])
        exact = [exact_match(answer, question) for answer, question in zip(found, questions, strict=True)]
        return Score(metric, float(scores.mean()), scores, {"exact match": float(np.mean(exact))})

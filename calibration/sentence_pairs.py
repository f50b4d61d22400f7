"""Pairs of sentences with a score of how alike they are; the samples are the sentences."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.arrays import ArraySplit
from calibration.datasets import Batch, Truth, some_of
from calibration.errors import DataError
from calibration.text_files import divide, find_files, read_rows
from calibration.tokens import TextEncoder

HIGHEST = 5.0
COLUMNS = ("sentence1", "sentence2", "score")


@dataclass(frozen=True, slots=True)
class SentencePair:
    """Two sentences and their score from 0 (nothing in common) to 5 (the same)."""

    first: str
    second: str
    score: float


class SentenceSplit(ArraySplit):
    """Sentences one by one, as the network embeds them; 2i and 2i + 1 are the i-th pair.

    Args:
        tokens: [2m, k, length].
        scores: [m] of the pairs, between 0 and 1.
    """

    def __init__(self, tokens: NDArray[np.int32], scores: NDArray[np.float32]) -> None:
        super().__init__(tokens, np.repeat(scores, 2), dtype=np.int64)
        self.scores = scores

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:  # noqa: ARG002 - nothing is drawn
        """Whole pairs, of which the sentences ``indices`` are the first halves: [2 n, k, length], scores [2 n].

        Only a pair has a score, so every sentence brings its partner, which follows it.
        """
        both = np.stack([indices, indices ^ 1], axis=1).ravel()
        return Batch(self.inputs(both), self.labels[both])

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Both sentences of random pairs."""
        first = 2 * some_of(count, len(self.scores), rng)
        return np.stack([first, first + 1], axis=1).ravel()

    def truth(self, indices: NDArray[np.int64]) -> Truth:
        """``scores`` [len(indices) / 2] of whole pairs."""
        return {"scores": self.scores[indices[::2] // 2]}


def sentence_splits(data: Path, encoder: TextEncoder) -> tuple[SentenceSplit, SentenceSplit]:
    """The train and test splits of STS files; one file alone is split by the content of its pairs.

    Args:
        data: a CSV or TSV file, or a folder as `find_files` takes.
        encoder: makes sequences of the sentences.

    Raises:
        DataError: files or columns are missing, a sentence is empty, a score is not between 0 and 5, or all are alike.
    """
    files = find_files(data, (".csv", ".tsv"), "sentence pairs: sentence, sentence, score from 0 to 5")
    train = read_pairs(files.train)
    train, test = (train, read_pairs(files.test)) if files.test else divide(train, _key)
    if len({pair.score for pair in test}) < 2:
        raise DataError(
            f"{data}: the {len(test)} pairs for evaluation all have one score, which no correlation can be computed "
            "from. Give more pairs"
        )
    return _split(train, encoder), _split(test, encoder)


def read_pairs(path: Path) -> list[SentencePair]:
    """Rows ``sentence, sentence, score``, or those columns of a table whose first row names them so.

    Raises:
        DataError: a column is missing, a sentence is empty, or a score is not between 0 and 5.
    """
    rows = read_rows(path)
    header = [name.strip().lower() for name in rows[0]]
    if set(COLUMNS) <= set(header):
        columns, first = [header.index(name) for name in COLUMNS], 1
    elif len(header) == 3:
        columns, first = [0, 1, 2], 0
    else:
        raise DataError(
            f"{path} has {len(header)} columns and none called {', '.join(COLUMNS)}. It needs rows of a sentence, "
            "a sentence and a score from 0 to 5, or a first row that names these three columns"
        )
    pairs = [
        SentencePair(row[columns[0]], row[columns[1]], _score(row[columns[2]], path, number))
        for number, row in enumerate(rows[first:], start=first + 1)
    ]
    for number, pair in enumerate(pairs, start=first + 1):
        if not pair.first.strip() or not pair.second.strip():
            raise DataError(f"{path}: row {number} has an empty sentence. Fill or remove it")
    return pairs


def _score(field: str, path: Path, number: int) -> float:
    try:
        score = float(field)
    except ValueError:
        score = float("nan")
    if not 0 <= score <= HIGHEST:
        raise DataError(f"{path}: row {number} has the score {field!r}: scores are numbers from 0 to 5")
    return score


def _split(pairs: Sequence[SentencePair], encoder: TextEncoder) -> SentenceSplit:
    tokens = encoder([sentence for pair in pairs for sentence in (pair.first, pair.second)])
    return SentenceSplit(tokens, np.array([pair.score / HIGHEST for pair in pairs], np.float32))


def _key(pair: SentencePair) -> str:
    return "\n".join(sorted((pair.first, pair.second)))

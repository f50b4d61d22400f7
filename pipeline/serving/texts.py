"""What goes into a language network and what comes out, for people: texts, and answers to questions about them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from calibration.questions import Windows, longest_question
from pipeline.scoring.answers import best_spans
from targets.errors import ArtifactError, RuntimeMissingError

if TYPE_CHECKING:
    from tokenizers import Encoding

Text = str | tuple[str, str]
"""A text, or two that share a sequence: a pair to compare, or a question and its context."""

PARTS = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
"""A network's inputs, and what the package `tokenizers` calls them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Args:
        text: as it stands in the context.
        start: its first character there.
        end: the first character behind it.
        margin: by how much the network prefers it to leaving the question unanswered; below 0 it does not.
    """

    text: str
    start: int
    end: int
    margin: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


class TextReader:
    """A bundle's tokenizer.

    Args:
        path: of its file, as `calibration.tokens.TextEncoder.to_json` writes it.
        names: of the network's inputs.

    Raises:
        RuntimeMissingError: the package `tokenizers` is not installed.
        ArtifactError: the file is broken.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError:
            raise RuntimeMissingError(
                "tokenizers is not installed, and texts need it: pip install 'spdy-edge[text]'. Token arrays can be "
                "given without it."
            ) from None
        try:
            content = path.read_text(encoding="utf-8")
            self._sequences, self._bare = Tokenizer.from_str(content), Tokenizer.from_str(content)
        except Exception as error:  # tokenizers raises bare Exceptions
            raise ArtifactError(f"{path} is no tokenizer that can be read ({error}). Get the bundle again.") from None
        self._bare.no_truncation()
        self._bare.no_padding()
        self._names = tuple(names)
        self._length = int((self._sequences.truncation or {}).get("max_length", 0))

    def tokens(self, texts: Sequence[Text]) -> dict[str, NDArray[np.int64]]:
        """The network's inputs [n, length] for n texts; longer ones are cut."""
        return self._arrays(self._sequences.encode_batch(list(texts)))

    def windows(self, question: str, context: str) -> tuple[dict[str, NDArray[np.int64]], Windows]:
        """The network's inputs [n, length] for the n windows of a context, and which characters their tokens are."""
        offsets = self._bare.encode(question, add_special_tokens=False).offsets
        limit = longest_question(self._length)
        cut = question[: offsets[:limit][-1][1]].strip() if offsets else ""
        first = self._sequences.encode(cut, context)
        encoded = [first, *first.overflowing]
        characters = [
            [place if part == 1 else (-1, -1) for place, part in zip(one.offsets, one.sequence_ids, strict=True)]
            for one in encoded
        ]
        inputs = self._arrays(encoded)
        tokens = np.stack(list(inputs.values()), axis=1).astype(np.int32)
        return inputs, Windows(tokens, np.array(characters, np.int32), np.zeros(len(encoded), np.int64))

    def _arrays(self, encoded: "Sequence[Encoding]") -> dict[str, NDArray[np.int64]]:
        return {name: np.array([getattr(one, PARTS[name]) for one in encoded], np.int64) for name in self._names}


def read_answer(context: str, windows: Windows, logits: NDArray[np.float32]) -> Answer:
    """The best span of a question's windows; logits [n, length, 2]."""
    (span,) = best_spans(windows, 1, logits)
    return Answer(context[span.first : span.end], span.first, span.end, span.score - span.unanswered)


def are_texts(inputs: Any) -> TypeGuard[str | Sequence[Text]]:
    """Whether inputs are a text, or a list of texts or pairs of them."""
    if isinstance(inputs, list | tuple) and inputs:
        return all(isinstance(one, str) or is_pair(one) for one in inputs)
    return isinstance(inputs, str)


def is_pair(sample: Any) -> TypeGuard[tuple[str, str]]:
    """Whether it is a pair of strings."""
    return isinstance(sample, tuple) and len(sample) == 2 and all(isinstance(text, str) for text in sample)

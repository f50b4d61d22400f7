"""Texts as a network sees them: token sequences of one length, the tensors of a text stacked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tokens = NDArray[np.int32]
"""[n, k, length] token sequences as they are kept; networks get them in int64."""

CHUNK = 1000
"""Texts that are encoded at a time."""
TOKENIZER = "tokenizer.json"
"""Name of the file that `TextEncoder.to_json` is kept in."""


class TextEncoder:
    """A tokenizer at a fixed length: shorter texts are padded, longer ones cut.

    Args:
        tokenizer: a fast one of transformers.
        length: tokens of a sequence, special ones included.
        names: of the tensors that the network takes, ``input_ids`` and ``attention_mask`` first.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", length: int, names: Sequence[str]) -> None:
        self.tokenizer = tokenizer
        self.length = length
        self.names = tuple(names)

    def __call__(self, texts: Sequence[str], seconds: Sequence[str] | None = None) -> Tokens:
        """[n, k, length] of texts, or of pairs of texts in one sequence each."""
        parts = [np.empty((0, len(self.names), self.length), np.int32)]
        for start in range(0, len(texts), CHUNK):
            rows = slice(start, start + CHUNK)
            encoded = self.tokenizer(
                list(texts[rows]),
                None if seconds is None else list(seconds[rows]),
                padding="max_length",
                truncation=True,
                max_length=self.length,
                return_token_type_ids=True,
            )
            parts.append(self.stacked(encoded))
        return np.concatenate(parts)

    def stacked(self, encoded: Any) -> Tokens:
        """[n, k, length] of what the tokenizer returned for n texts."""
        return np.stack([np.asarray(encoded[name], np.int32) for name in self.names], axis=1)

    def to_json(self, stride: int | None = None) -> str:
        """The tokenizer as a file of the package `tokenizers`, which alone makes the same sequences of texts.

        Args:
            stride: tokens that windows of a long second text share; None cuts texts that are too long.
        """
        from tokenizers import Tokenizer

        own = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        windows = {"stride": stride, "strategy": "only_second"} if stride is not None else {}
        own.enable_truncation(self.length, **windows)
        own.enable_padding(
            length=self.length,
            pad_id=self.tokenizer.pad_token_id,
            pad_token=self.tokenizer.pad_token,
            pad_type_id=self.tokenizer.pad_token_type_id,
        )
        return str(own.to_str())

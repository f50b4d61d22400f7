"""Trained language models in Hugging Face's layout: a folder of config, tokenizer and safetensors, or a hub's name."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from targets.errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAMILY = ("bert", "distilbert", "electra", "roberta", "xlm-roberta")
"""Kinds of models, as their config.json names them, whose exported graphs are known to run well."""
OFFSET_POSITIONS = ("roberta", "xlm-roberta")
"""Those that count positions from the padding's index + 1."""
WITHOUT_TYPES = ("distilbert", "roberta", "xlm-roberta")
"""Those that take no token_type_ids, or but one value of it."""
NEEDED = ("*.json", "*.txt", "*.safetensors")
PADDED_VOCABULARY = 256
"""Models may know this many tokens more than their tokenizers: vocabularies are filled up to round numbers."""


@dataclass(frozen=True)
class Pretrained:
    """A folder that holds a trained model of the BERT family and its tokenizer."""

    folder: Path

    @cached_property
    def config(self) -> Any:
        """The architecture, from config.json.

        Raises:
            ArtifactError: the file is broken.
            ConfigError: the model is of another family.
        """
        from transformers import AutoConfig

        kind = self.json("config.json").get("model_type")
        if kind not in FAMILY:
            raise ConfigError(f"{self.folder} holds a model of type {kind!r}; there are: {', '.join(FAMILY)}.")
        with _quiet():
            return AutoConfig.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer, checked against the model.

        Raises:
            ArtifactError: there is none that loads.
            ConfigError: it is not the one that the model was trained with.
        """
        from transformers import AutoTokenizer

        try:
            with _quiet():
                found = AutoTokenizer.from_pretrained(self.folder, local_files_only=True, use_fast=True)
        except Exception as error:  # transformers and tokenizers raise many kinds
            raise ArtifactError(f"{self.folder} has no tokenizer that loads ({error}): copy tokenizer.json.") from error
        if not found.is_fast:
            raise ArtifactError(f"{self.folder} has no tokenizer.json: save its fast tokenizer there.")
        known, tokens = self.config.vocab_size, len(found)
        if not 0 <= known - tokens < PADDED_VOCABULARY:
            raise ConfigError(
                f"{self.folder}: the tokenizer has {tokens} tokens, the model knows {known}: they do not belong "
                "together. Copy the tokenizer that the model was trained with."
            )
        return found

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of what the model takes."""
        names = ("input_ids", "attention_mask")
        return names if self.config.model_type in WITHOUT_TYPES else (*names, "token_type_ids")

    @property
    def first_position(self) -> int:
        """Index of a sequence's first position."""
        return int(self.config.pad_token_id) + 1 if self.config.model_type in OFFSET_POSITIONS else 0

    def length(self, asked: int | None, usual: int) -> int:
        """Tokens of a sequence: those asked for, or as many as usual and possible.

        Raises:
            ConfigError: more were asked for than the model has positions for, or fewer than make a sequence.
        """
        most = int(self.config.max_position_embeddings) - self.first_position
        if asked is None:
            return min(usual, most)
        if not 4 <= asked <= most:
            raise ConfigError(
                f"--input-size {asked} asks for {asked} tokens a sequence; the model {self.folder} takes 4 to {most}."
            )
        return asked

    def model(self, kind: str, **settings: Any) -> nn.Module:
        """The model with its weights, in eval mode and float32, with attention in plain matrix products.

        Args:
            kind: a class of transformers, such as ``AutoModelForQuestionAnswering``.
            settings: for it.

        Raises:
            ArtifactError: the weights are broken, pickled, of another architecture, or lack what ``kind`` needs.
        """
        import transformers

        self._require_safetensors()
        try:
            with _quiet():
                model, found = getattr(transformers, kind).from_pretrained(
                    self.folder,
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                    attn_implementation="eager",
                    dtype=torch.float32,
                    **settings,
                )
        except Exception as error:  # transformers and safetensors raise many kinds
            raise ArtifactError(f"The weights in {self.folder} do not load: {error}") from error
        missing = sorted(found["missing_keys"])
        if missing:
            raise ArtifactError(
                f"The weights in {self.folder} lack {', '.join(missing[:4])}{', …' if len(missing) > 4 else ''}: this "
                "model was not trained for the task. Fine-tune it first, or choose the --model that it was trained for."
            )
        for name, tensor in model.named_parameters():
            if not bool(torch.isfinite(tensor).all()):
                raise ArtifactError(f"{self.folder}: tensor {name} holds NaN or infinity; the weights are not usable.")
        return model.eval()  # type: ignore[no-any-return]

    def json(self, name: str) -> Any:
        """Content of a JSON file in the folder.

        Raises:
            ArtifactError: it is missing or broken.
        """
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ArtifactError(
                f"{self.folder / name} cannot be read: {error}. Copy the model's folder again."
            ) from error

    def _require_safetensors(self) -> None:
        if any((self.folder / f"model.safetensors{suffix}").exists() for suffix in ("", ".index.json")):
            return
        raise ArtifactError(
            f"{self.folder} has no model.safetensors. Pickled weights (.bin, .pt) could run code when loaded and are "
            "refused: save the model where it comes from with model.save_pretrained(folder)."
        )


def find_pretrained(weights: Path | None) -> Pretrained:
    """The model in a folder, or, where no such folder is, the one of this name on Hugging Face's hub.

    Only configuration, tokenizer and safetensors are fetched, once, into the hub's own cache.

    Args:
        weights: a folder, or a name such as ``deepset/bert-base-cased-squad2``.

    Raises:
        ConfigError: nothing is given, or there is no such folder and no such model.
    """
    if weights is None:
        raise ConfigError(
            "Models of the BERT family need trained weights: give --weights FOLDER in Hugging Face's layout."
        )
    if (weights / "config.json").is_file():
        return Pretrained(weights)
    if weights.exists() or len(weights.parts) > 2 or weights.is_absolute():
        raise ConfigError(
            f"{weights} has no config.json: give --weights a folder in Hugging Face's layout (config.json, "
            "model.safetensors, tokenizer.json), or a name on its hub."
        )
    return Pretrained(_fetch(str(weights)))


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with _quiet():
            return Path(snapshot_download(name, allow_patterns=list(NEEDED)))
    except Exception as error:  # the hub's, the network's and the cache's kinds
        raise ConfigError(
            f"There is no folder {name}, and it cannot be fetched from Hugging Face's hub ({error}). Give --weights a "
            "folder with config.json, model.safetensors and tokenizer.json."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars or remarks on standard error: this tool shows its own progress."""
    import huggingface_hub.utils
    from transformers.utils import logging

    hub: Any = huggingface_hub.utils  # neither has types
    transformers: Any = logging
    verbosity, shown = transformers.get_verbosity(), transformers.is_progress_bar_enabled()
    hub_shown = not hub.are_progress_bars_disabled()
    transformers.set_verbosity_error()
    transformers.disable_progress_bar()
    hub.disable_progress_bars()
    try:
        yield
    finally:
        transformers.set_verbosity(verbosity)
        if shown:
            transformers.enable_progress_bar()
        if hub_shown:
            hub.enable_progress_bars()

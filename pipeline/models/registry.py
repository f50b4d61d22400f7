"""Models by name."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.models.base import ModelAdapter
from pipeline.models.classifiers import ResNetAdapter
from pipeline.models.detection import DATA_FORMAT, YoloAdapter
from pipeline.models.own import is_own, own_adapter
from pipeline.models.resnet import VARIANTS
from pipeline.models.yolov5 import SIZES
from targets.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model for people to choose.

    Args:
        make: its adapter; imports what the family needs, and nothing before.
    """

    name: str
    description: str
    data_format: str
    make: Callable[[], ModelAdapter]


def list_models() -> list[ModelInfo]:
    """Every model that `get_adapter` knows, the embedded one first."""
    resnets = [ModelInfo(v.name, v.description, v.data_format, partial(ResNetAdapter, v)) for v in VARIANTS.values()]
    yolos = [ModelInfo(size.name, size.description, DATA_FORMAT, partial(YoloAdapter, size)) for size in SIZES.values()]
    return [*resnets, *yolos, *_LANGUAGE_MODELS]


def get_adapter(name: str) -> ModelAdapter:
    """The adapter of a model such as ``resnet:20``, or the user's own one from ``package.module:factory``.

    Raises:
        ConfigError: there is no such model; names the nearest. Or the user's own adapter is incomplete.
    """
    models = {model.name: model for model in list_models()}
    if name in models:
        return models[name].make()
    if is_own(name) and name.split(":")[0] not in {known.split(":")[0] for known in models}:
        return own_adapter(name)
    near = difflib.get_close_matches(name, models, n=1, cutoff=0.0)
    raise ConfigError(f"Unknown model {name!r}; did you mean {near[0]!r}? There are: {', '.join(models)}.")


def _question_answering() -> ModelAdapter:
    from pipeline.models.language import QuestionAnswering

    return QuestionAnswering()


def _text_classification() -> ModelAdapter:
    from pipeline.models.language import TextClassification

    return TextClassification()


def _sentence_embedding() -> ModelAdapter:
    from pipeline.models.language import SentenceEmbedding

    return SentenceEmbedding()


_FOLDER = (
    "--weights a folder in Hugging Face's layout (BERT, (XLM-)RoBERTa, DistilBERT, ELECTRA) or its name on the hub"
)
_LANGUAGE_MODELS = (
    ModelInfo(
        "bert:qa",
        f"question answering, F1 and exact match; {_FOLDER}",
        "SQuAD's JSON: a folder with train*.json and dev*.json, or one file; 384 tokens by default",
        _question_answering,
    ),
    ModelInfo(
        "bert:classification",
        f"text classification, accuracy; {_FOLDER}",
        "CSV or TSV with columns text, label (and text2): train* and dev*, or one file; 128 tokens by default",
        _text_classification,
    ),
    ModelInfo(
        "bert:embedding",
        f"sentence embeddings, Spearman correlation; {_FOLDER}",
        "STS: CSV or TSV of sentence, sentence, score 0 to 5; train* and dev*, or one file; 128 tokens by default",
        _sentence_embedding,
    ),
)

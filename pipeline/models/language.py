"""The adapters of language models: question answering, text classification and sentence embeddings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.datasets import Split, Splits
from calibration.labelled_texts import labelled_splits
from calibration.questions import SHARED, question_splits
from calibration.sentence_pairs import sentence_splits
from calibration.tokens import TOKENIZER, TextEncoder
from pipeline.certification.accuracy import Score
from pipeline.models.base import Block, Feeds, Predict, Recipe, Unit
from pipeline.models.bert import (
    TENSORS,
    Deployed,
    QuestionNetwork,
    SentenceNetwork,
    TextNetwork,
    encoder_widths,
    layer_names,
)
from pipeline.models.distillation import SHARE, distilled, divergence
from pipeline.models.pretrained import Pretrained, find_pretrained
from pipeline.models.tracing import trace_units
from pipeline.scoring.base import Scorer
from pipeline.scoring.classes import ClassScorer
from pipeline.scoring.questions import QuestionScorer
from pipeline.scoring.similarity import SimilarityScorer
from pipeline.serving.record import QUESTION_ANSWERING, SENTENCE_SIMILARITY, TEXT_CLASSIFICATION
from targets.errors import ArtifactError, ConfigError

DISTILLATION_TEMPERATURE = 2.0

RECIPE = Recipe(
    optimizer="adamw",
    peak_lr=1e-4,
    weight_decay=0.01,
    training_batch=32,
    correction_lr=2e-4,
    block_weight=1.0,
    training_block_weight=1.0,
    inference_batch=32,
)


class _LanguageModel:
    """What the adapters share: samples [k, length], encoders whose linear layers are compressed, and their inputs."""

    recipe = RECIPE

    def units(self, model: nn.Module, sample: Tensor) -> list[Unit]:
        """Every linear layer, at the full length; those outside of the encoder's layers stay dense."""
        full = sample.clone()
        full[:, 1] = 1
        layers = tuple(f"{name}." for name in layer_names(model))
        others = [name for name, _ in model.named_modules() if not name.startswith(layers)]
        return trace_units(model, full, dense=others)

    def blocks(self, model: nn.Module) -> list[str]:
        """Names of the encoder's layers."""
        return layer_names(model)

    def widths(self, model: nn.Module) -> list[Block]:
        """The attention heads and the hidden neurons of the encoder's layers."""
        return encoder_widths(model)

    def deployed(self, model: nn.Module) -> nn.Module:
        """The network with its tensors apart, in the order of `TENSORS`."""
        assert isinstance(model, QuestionNetwork | TextNetwork | SentenceNetwork)
        return Deployed(model)

    def feeds(self, inputs: NDArray[Any]) -> Feeds:
        """The tensors [n, length] of samples [n, k, length]."""
        return {name: np.ascontiguousarray(inputs[:, index]) for index, name in enumerate(TENSORS[: inputs.shape[1]])}


class QuestionAnswering(_LanguageModel):
    """Finds the answer to a question in a text; implements `pipeline.models.base.ModelAdapter`."""

    name = "bert:qa"
    metric = "F1"
    task = QUESTION_ANSWERING

    def load_data(self, data: Path | None, weights: Path | None, input_size: int | None) -> Splits:
        """SQuAD files in windows of ``input_size`` tokens, by default 384.

        Raises:
            ConfigError: no data or weights, or a length or tokenizer that does not go with the model.
            DataError: the files are missing, of another format, or hold answers that are not in their contexts.
        """
        return _load(self.name, question_splits, data, weights, input_size, 384, windows=True)

    def load(self, weights: Path | None, data: Splits) -> nn.Module:  # noqa: ARG002 - nothing of it is needed
        """The network with the weights of a folder.

        Raises:
            ConfigError, ArtifactError: as `find_pretrained` and `Pretrained.model`.
        """
        found = find_pretrained(weights)
        return QuestionNetwork(found.model("AutoModelForQuestionAnswering"), found.first_position).eval()

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] Kullback-Leibler divergence over the tokens, averaged over first and last token of the answer."""
        return divergence(outputs, dense_outputs).mean(dim=1).clamp_min(0)

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of first and last token, with distillation; labels [n, 2]."""
        return distilled(outputs, dense_outputs, labels, DISTILLATION_TEMPERATURE)

    def training_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """[n] 1 where first and last token are both right."""
        return (outputs.argmax(dim=1) == labels).all(dim=1).float()

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """F1 by SQuAD's rules; exact match is reported beside it."""
        return _evaluate(QuestionScorer(), predict, data.test, self.metric)


class TextClassification(_LanguageModel):
    """Tells classes of texts apart; implements `pipeline.models.base.ModelAdapter`."""

    name = "bert:classification"
    metric = "accuracy"
    task = TEXT_CLASSIFICATION

    def load_data(self, data: Path | None, weights: Path | None, input_size: int | None) -> Splits:
        """CSV or TSV files, in sequences of ``input_size`` tokens, by default 128.

        Raises:
            ConfigError: no data or weights, or a length or tokenizer that does not go with the model.
            DataError: files or columns are missing, or labels are not the network's classes.
        """
        names = _class_names(find_pretrained(weights))

        def splits(path: Path, encoder: TextEncoder) -> tuple[Split, Split]:
            return labelled_splits(path, encoder, names)

        return _load(self.name, splits, data, weights, input_size, 128)

    def load(self, weights: Path | None, data: Splits) -> nn.Module:
        """The network with the weights of a folder.

        Raises:
            ConfigError, ArtifactError: as `find_pretrained` and `Pretrained.model`; or other classes than the data's.
        """
        found = find_pretrained(weights)
        if _class_names(found) != data.train.classes:
            raise ConfigError(
                f"{found.folder} tells {len(_class_names(found))} classes apart, the data '{data.name}' has "
                f"{len(data.train.classes)}: give --weights and --data that go together."
            )
        return TextNetwork(found.model("AutoModelForSequenceClassification"), found.first_position).eval()

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] Kullback-Leibler divergence of the compressed network's class probabilities from the dense one's."""
        return divergence(outputs, dense_outputs).clamp_min(0)

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy with distillation."""
        return distilled(outputs, dense_outputs, labels, DISTILLATION_TEMPERATURE)

    def training_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """[n] 1 where the class is right."""
        return (outputs.argmax(dim=1) == labels).float()

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """Share of texts whose class is right."""
        return _evaluate(ClassScorer(), predict, data.test, self.metric)


class SentenceEmbedding(_LanguageModel):
    """Maps sentences to directions; implements `pipeline.models.base.ModelAdapter`."""

    name = "bert:embedding"
    metric = "Spearman correlation"
    task = SENTENCE_SIMILARITY

    def load_data(self, data: Path | None, weights: Path | None, input_size: int | None) -> Splits:
        """STS files; a sample is one sentence of ``input_size`` tokens, by default 128.

        Raises:
            ConfigError: no data or weights, or a length or tokenizer that does not go with the model.
            DataError: files or columns are missing, or scores are not between 0 and 5.
        """
        return _load(self.name, sentence_splits, data, weights, input_size, 128)

    def load(self, weights: Path | None, data: Splits) -> nn.Module:  # noqa: ARG002 - nothing of it is needed
        """The network with the weights of a folder, in the layout of sentence-transformers or a bare encoder.

        Raises:
            ConfigError, ArtifactError: as `find_pretrained` and `Pretrained.model`, or a pooling that is not known.
        """
        found = find_pretrained(weights)
        bare = {"add_pooling_layer": False} if found.config.model_type in ("bert", "roberta", "xlm-roberta") else {}
        return SentenceNetwork(found.model("AutoModel", **bare), found.first_position, _pooling(found)).eval()

    def calibration_loss(self, outputs: Tensor, dense_outputs: Tensor) -> Tensor:
        """[n] 1 - cosine of the angle to the dense network's embedding."""
        return (1 - functional.cosine_similarity(outputs.float(), dense_outputs.float())).clamp_min(0)

    def training_loss(self, outputs: Tensor, dense_outputs: Tensor, labels: Tensor) -> Tensor:
        """Distance to the dense network's embeddings, and of every pair's cosine from its score; labels [2 n]."""
        distances = self.calibration_loss(outputs, dense_outputs).mean()
        errors = (_pair_cosines(outputs) - labels[::2]).square().mean()
        return SHARE * distances + (1 - SHARE) * errors

    def training_score(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """[n] 1 - distance of the pair's cosine from its score."""
        return (1 - (_pair_cosines(outputs) - labels[::2]).abs()).clamp(0, 1)

    def evaluate(self, predict: Predict, data: Splits) -> Score:
        """Spearman's rank correlation of the pairs' cosines with their scores; at least 0."""
        return _evaluate(SimilarityScorer(), predict, data.test, self.metric)


def _load(
    name: str,
    splits: Callable[[Path, TextEncoder], tuple[Split, Split]],
    data: Path | None,
    weights: Path | None,
    input_size: int | None,
    usual: int,
    windows: bool = False,
) -> Splits:
    """Data as sequences of the tokenizer that lies beside the weights."""
    found = find_pretrained(weights)
    if data is None:
        raise ConfigError(f"{name} has no data of its own: give --data, see `pipeline models list`.")
    encoder = TextEncoder(found.tokenizer, found.length(input_size, usual), found.tensors)
    stride = encoder.length // SHARED if windows else None
    return Splits(data.stem, *splits(data, encoder), {TOKENIZER: encoder.to_json(stride)})


def _evaluate(scorer: Scorer, predict: Predict, split: Split, metric: str) -> Score:
    """The score of all samples of a split."""
    rows = np.arange(len(split))
    return scorer.score([predict(split.inputs(rows))], split.truth(rows), metric)


def _class_names(found: Pretrained) -> tuple[str, ...]:
    """Names of the classes in the order of the outputs."""
    names = found.config.id2label
    return tuple(str(names[index]) for index in sorted(names))


def _pooling(found: Pretrained) -> str:
    """How tokens become one embedding, by the files of sentence-transformers; ``mean`` without them."""
    modules = found.json("modules.json") if (found.folder / "modules.json").exists() else []
    unknown = {str(module["type"]).rsplit(".", 1)[-1] for module in modules} - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise ConfigError(
            f"{found.folder} puts {', '.join(sorted(unknown))} behind its encoder, which is not known here."
        )
    path = "1_Pooling/config.json"
    if not (found.folder / path).exists():
        return "mean"
    config = found.json(path)
    modes = [key.removeprefix("pooling_mode_") for key, chosen in config.items() if chosen is True]
    modes = [mode for mode in (config.get("pooling_mode"), *modes) if mode]
    known = {"mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise ArtifactError(f"{found.folder / path} asks for the pooling {modes}; known are mean and cls, one of them.")
    return known[modes[0]]


def _pair_cosines(outputs: Tensor) -> Tensor:
    """[m] cosines of embeddings 2i and 2i + 1."""
    return functional.cosine_similarity(outputs[::2].float(), outputs[1::2].float())

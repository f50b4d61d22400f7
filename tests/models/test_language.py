"""The adapters of language models: data, units, losses and official scores."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from calibration.errors import DataError
from calibration.statistics import collect_statistics
from pipeline.models.base import ModelAdapter
from pipeline.models.bert import MASKED
from pipeline.models.inference import torch_predict
from pipeline.models.language import QuestionAnswering, SentenceEmbedding, TextClassification
from targets.errors import ArtifactError, ConfigError
from tests.pretrained import save_model

DATA = os.environ.get("SPDY_DATA")
CONTEXT = "a quick fox jumps over the lazy dog. the brown dog sees a good fox. "
LAYERS = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("qa"), "AutoModelForQuestionAnswering")
    paragraphs = [
        {
            "context": CONTEXT * 3 + "dog " * number,
            "qas": [
                {"id": f"{number}", "question": f"who {verb}?", "answers": [{"text": text, "answer_start": start}]}
                for verb, text, start in (("jumps", "quick fox", 2), ("sees", "brown dog", 41))
            ],
        }
        for number in range(8)
    ]
    (folder / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return QuestionAnswering(), folder, folder / "squad.json"


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    folder = save_model(tmp_path_factory.mktemp("cls"), "AutoModelForSequenceClassification", **labels)
    rows = [f"{'the ' * (n // 2)}{('bad', 'good')[n % 2]} dog,{('bad', 'good')[n % 2]}\n" for n in range(24)]
    (folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    return TextClassification(), folder, folder / "texts.csv"


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("sts"))
    rows = [f"the {'quick ' * n} fox,a {'lazy ' * (n % 3)} dog,{n % 6}\n" for n in range(20)]
    (folder / "sts.csv").write_text("".join(rows))
    return SentenceEmbedding(), folder, folder / "sts.csv"


@pytest.fixture(params=["questions", "texts", "sentences"])
def loaded(request):
    adapter, weights, data = request.getfixturevalue(request.param)
    splits = adapter.load_data(data, weights, 32)
    return adapter, adapter.load(weights, splits), splits


def test_adapters_keep_the_protocol(loaded):
    adapter: ModelAdapter = loaded[0]
    assert adapter.name.startswith("bert:")
    assert adapter.recipe.optimizer == "adamw"


def test_units_are_the_encoders_linear_layers_at_full_length(loaded):
    adapter, network, splits = loaded
    units = adapter.units(network, torch.from_numpy(splits.train.inputs(np.arange(1))))
    prunable = [unit for unit in units if unit.prunable]
    assert [unit.name.split("layer.0.")[-1] for unit in prunable[:6]] == [*LAYERS, "intermediate.dense", "output.dense"]
    assert len(prunable) == 12
    assert all(".layer." not in unit.name for unit in units if not unit.prunable)
    assert {unit.latency_group for unit in prunable} == {f"linear:{shape}@32" for shape in ("16x16", "16x24", "24x16")}
    assert prunable[0].macs == 16 * 16 * 32
    blocks = adapter.blocks(network)
    assert all(unit.name.startswith(tuple(f"{block}." for block in blocks)) for unit in prunable)


def test_networks_and_deployed_forms_agree_and_take_the_same_samples(loaded):
    adapter, network, splits = loaded
    inputs = splits.test.inputs(np.arange(4))
    feeds = adapter.feeds(inputs)
    assert list(feeds) == ["input_ids", "attention_mask", "token_type_ids"]
    assert all(array.shape == (4, 32) and array.flags.c_contiguous for array in feeds.values())
    deployed = torch_predict(adapter.deployed(network), adapter.feeds)(inputs)
    with torch.no_grad():
        raw = network(torch.from_numpy(inputs)).numpy()
    if adapter.task == "sentence-similarity":
        raw = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    real = raw != MASKED
    assert deployed[real] == pytest.approx(raw[real], abs=1e-5)


def test_losses_are_least_at_the_dense_network(loaded):
    adapter, network, splits = loaded
    batch = splits.train.batch(np.arange(6), np.random.default_rng(0))
    inputs, labels = torch.from_numpy(batch.inputs), torch.from_numpy(batch.labels)
    with torch.no_grad():
        dense = network(inputs)
    other = dense + torch.randn(dense.shape, generator=torch.Generator().manual_seed(0)) * (dense != MASKED)
    same, worse = adapter.calibration_loss(dense, dense), adapter.calibration_loss(other, dense)
    assert same.shape == (len(inputs),)
    assert same.min() >= 0
    assert same.max() < 1e-5
    assert worse.min() > 1e-4
    outputs = other.clone().requires_grad_()
    loss = adapter.training_loss(outputs, dense, labels)
    loss.backward()
    assert loss.shape == ()
    assert torch.isfinite(outputs.grad).all()
    score = adapter.training_score(dense, labels)
    assert 0 <= score.min() <= score.max() <= 1


def test_padding_enters_no_statistics(loaded):
    adapter, network, splits = loaded
    inputs = torch.from_numpy(splits.train.inputs(np.arange(6)))
    longer = torch.nn.functional.pad(inputs, (0, 8))
    name = adapter.units(network, inputs[:1])[0].name
    (_, found), (_, padded) = (next(collect_statistics(network, [name], [x])) for x in (inputs, longer))
    assert padded.hessian == pytest.approx(found.hessian, rel=1e-4, abs=1e-4)
    real = int(inputs[:, 1].sum())
    layer, counts = network.get_submodule(name), []
    handle = layer.register_forward_pre_hook(lambda _m, x: counts.append(x[0].shape[:2].numel()))
    with torch.no_grad():
        network(inputs)
    handle.remove()
    assert counts[0] >= real


def test_right_answers_score_1(questions):
    adapter, weights, data = questions
    splits = adapter.load_data(data, weights, None)
    assert splits.train.input_shape == (3, 64)  # 384 is usual; the network has positions for 64
    position = 0

    def oracle(inputs):
        nonlocal position
        labels = splits.test.labels[position : position + len(inputs)]
        position += len(inputs)
        logits = np.full((len(inputs), 64, 2), -5, np.float32)
        for row, label in zip(logits, labels, strict=True):
            if label[0]:
                row[label, [0, 1]] = 5
        return logits

    score = adapter.evaluate(oracle, splits)
    assert score.value == 1
    assert score.others == {"exact match": 1}
    assert score.per_sample.shape == (len(splits.test.questions),) == (4,)
    outputs = torch.zeros(2, 8, 2)
    outputs[:, 3, 0] = outputs[:, 4, 1] = 1
    assert adapter.training_score(outputs, torch.tensor([[3, 4], [3, 5]])).tolist() == [1, 0]


def test_accuracy_counts_every_text_once(texts):
    adapter, weights, data = texts
    splits = adapter.load_data(data, weights, 16)
    assert splits.train.classes == ("bad", "good")
    words = splits.test.inputs(np.arange(len(splits.test)))[:, 0]
    good = int(splits.test.inputs(np.array([int(np.argmax(splits.test.labels))]))[0, 0].max())
    assert (words == good).any()

    def predict(inputs):
        return np.stack([np.zeros(len(inputs)), (inputs[:, 0] == 16).any(axis=1) - 0.5], axis=1).astype(np.float32)

    score = adapter.evaluate(predict, splits)
    assert score.value == 1.0
    assert score.per_sample.shape == (len(splits.test),)


def test_spearman_is_scipys_and_a_mean_over_pairs(sentences):
    adapter, weights, data = sentences
    splits = adapter.load_data(data, weights, 32)
    network = adapter.load(weights, splits)
    predict = torch_predict(adapter.deployed(network), adapter.feeds)
    embeddings = predict(splits.test.inputs(np.arange(len(splits.test))))
    expected = spearmanr((embeddings[::2] * embeddings[1::2]).sum(axis=1), splits.test.scores).statistic
    score = adapter.evaluate(predict, splits)
    assert score.per_sample.shape == (5,)
    assert score.per_sample.mean() == pytest.approx(expected, abs=1e-6)
    assert score.value == pytest.approx(max(0, expected), abs=1e-6)


def test_pairs_train_towards_their_scores(sentences):
    adapter = sentences[0]
    dense = torch.tensor([[1.0, 0], [0, 1]])
    alike, unlike = torch.ones(2), torch.zeros(2)
    assert adapter.training_loss(dense, dense, unlike) < adapter.training_loss(dense, dense, alike)
    assert adapter.training_score(dense, unlike).tolist() == [1]
    assert adapter.training_score(dense, alike).tolist() == [0]


def test_data_and_weights_that_do_not_go_together_are_refused(texts, questions, sentences, tmp_path):
    adapter, weights, data = texts
    with pytest.raises(ConfigError, match="bert:classification has no data of its own"):
        adapter.load_data(None, weights, None)
    with pytest.raises(ConfigError, match="takes 4 to 64"):
        adapter.load_data(data, weights, 128)
    three = save_model(tmp_path, "AutoModelForSequenceClassification", num_labels=3)
    with pytest.raises(DataError, match=r"bad, good.*3 classes: LABEL_0, LABEL_1, LABEL_2"):
        adapter.load_data(data, three, None)
    with pytest.raises(ConfigError, match="tells 3 classes apart, the data 'texts' has 2"):
        adapter.load(three, adapter.load_data(data, weights, 16))
    with pytest.raises(ArtifactError, match="not trained for the task"):
        questions[0].load(sentences[1], adapter.load_data(data, weights, 16))


def _pooling(folder, modules=(), **config):
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{m}"} for m in modules]))


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
    ],
)
def test_pooling_is_that_of_the_folder(tmp_path, sentences, config, pooling):
    adapter, weights, data = sentences
    splits = adapter.load_data(data, weights, 32)
    assert adapter.load(save_model(tmp_path), splits).pooling == "mean"
    _pooling(tmp_path, ("Transformer", "Pooling", "Normalize"), **config)
    assert adapter.load(tmp_path, splits).pooling == pooling


def test_other_poolings_and_layers_behind_are_refused(tmp_path, sentences):
    adapter, weights, data = sentences
    splits = adapter.load_data(data, weights, 32)
    _pooling(save_model(tmp_path), pooling_mode_max_tokens=True)
    with pytest.raises(ArtifactError, match=r"'max_tokens'.*mean and cls"):
        adapter.load(tmp_path, splits)
    _pooling(tmp_path, ("Transformer", "Pooling", "Dense"), pooling_mode_mean_tokens=True)
    with pytest.raises(ConfigError, match="puts Dense behind its encoder"):
        adapter.load(tmp_path, splits)


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="SPDY_DATA is not set")
def test_minilm_has_its_published_correlation(minilm):
    adapter = SentenceEmbedding()
    splits = adapter.load_data(Path(DATA or "") / "stsb", minilm, None)
    network = adapter.load(minilm, splits)
    assert splits.train.input_shape == (3, 128)
    assert len(adapter.units(network, torch.from_numpy(splits.train.inputs(np.arange(1))))) == 36

    def predict(inputs):  # the network leaves out the padding behind the longest sentence that it is given
        with torch.no_grad():
            return torch.cat([network(some) for some in torch.from_numpy(inputs).split(16)]).numpy()

    assert adapter.evaluate(predict, splits).value == pytest.approx(0.8672, abs=1e-4)

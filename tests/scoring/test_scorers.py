"""A sample of any task, written and read again, is scored as the family's own evaluation scores it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calibration.datasets import Splits
from pipeline.certification.accuracy import accuracy_record
from pipeline.models.base import ModelAdapter
from pipeline.models.detection import YoloAdapter
from pipeline.models.inference import torch_predict
from pipeline.models.language import QuestionAnswering, SentenceEmbedding, TextClassification
from pipeline.models.yolov5 import Size, YoloV5
from pipeline.scoring.registry import scorer_of
from pipeline.serving.record import TensorSpec
from pipeline.verifying.sample import read_sample, write_sample
from targets.errors import ConfigError
from tests.calibration.detection_data import write_coco
from tests.pretrained import save_model

TINY = Size("yolov5:tiny", 0.33, 0.125, 0.5)
CONTEXT = "a quick fox jumps over the lazy dog. the brown dog sees a good fox. "


def _questions(folder: Path) -> tuple[ModelAdapter, Path, Path]:
    save_model(folder, "AutoModelForQuestionAnswering")
    paragraphs = [
        {
            "context": CONTEXT * 3 + "dog " * number,
            "qas": [
                {"id": "1", "question": "who jumps?", "answers": [{"text": "quick fox", "answer_start": 2}]},
                {"id": "2", "question": "who flies?", "answers": []},
            ],
        }
        for number in range(8)
    ]
    (folder / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return QuestionAnswering(), folder, folder / "squad.json"


def _texts(folder: Path) -> tuple[ModelAdapter, Path, Path]:
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    save_model(folder, "AutoModelForSequenceClassification", **labels)
    rows = [f"{'the ' * (n // 2)}{('bad', 'good')[n % 2]} dog,{('bad', 'good')[n % 2]}\n" for n in range(24)]
    (folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    return TextClassification(), folder, folder / "texts.csv"


def _sentences(folder: Path) -> tuple[ModelAdapter, Path, Path]:
    save_model(folder)
    rows = [f"the {'quick ' * n} fox,a {'lazy ' * (n % 3)} dog,{n % 6}\n" for n in range(20)]
    (folder / "sts.csv").write_text("".join(rows))
    return SentenceEmbedding(), folder, folder / "sts.csv"


def _objects(folder: Path) -> tuple[ModelAdapter, Path | None, Path]:
    return YoloAdapter(TINY), None, write_coco(folder / "pets")


Loaded = tuple[ModelAdapter, Splits, Any]


@pytest.fixture(scope="module", params=[_questions, _texts, _sentences, _objects], ids=lambda make: make.__name__[1:])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    adapter, weights, data = request.param(tmp_path_factory.mktemp("data"))
    splits = adapter.load_data(data, weights, 64 if weights is None else 32)
    torch.manual_seed(0)
    network = YoloV5(TINY, 2).eval() if weights is None else adapter.load(weights, splits)
    return adapter, splits, torch_predict(adapter.deployed(network), adapter.feeds, 8)


def _inputs(feeds: dict[str, Any]) -> list[TensorSpec]:
    return [TensorSpec(name, array.shape, str(array.dtype)) for name, array in feeds.items()]


def test_the_whole_split_as_a_sample_scores_as_the_evaluation(loaded: Loaded, tmp_path: Path) -> None:
    adapter, splits, predict = loaded
    rows = splits.test.draw(10**6, np.random.default_rng(0))
    assert list(rows) == list(range(len(splits.test)))
    feeds, scorer = adapter.feeds(splits.test.inputs(rows)), scorer_of(adapter.task)
    write_sample(tmp_path / "sample.npz", feeds, splits.test.truth(rows))
    read, truth = read_sample(tmp_path / "sample.npz", _inputs(feeds), scorer)
    assert all(np.array_equal(read[name], array) for name, array in feeds.items())
    found = scorer.score([predict(splits.test.inputs(rows))], truth, adapter.metric)
    expected = adapter.evaluate(predict, splits)
    assert found.metric == expected.metric
    assert found.value == pytest.approx(expected.value)
    assert found.per_sample == pytest.approx(expected.per_sample)
    assert dict(found.others) == pytest.approx(dict(expected.others))
    assert accuracy_record(expected, found)["difference"] == 0


def test_a_few_are_drawn_whole(loaded: Loaded) -> None:
    """Two images, texts, pairs or questions with all of their windows: each is judged by everything it needs."""
    adapter, splits, predict = loaded
    rows = splits.test.draw(2, np.random.default_rng(1))
    scorer, truth = scorer_of(adapter.task), splits.test.truth(rows)
    assert scorer.problem(truth, len(rows)) is None or adapter.name == "bert:embedding"  # two pairs may be alike
    assert len(scorer.score([predict(splits.test.inputs(rows))], truth, adapter.metric).per_sample) == 2


def test_what_does_not_fit_is_told(loaded: Loaded, tmp_path: Path) -> None:
    adapter, splits, _ = loaded
    rows = np.arange(len(splits.test))
    feeds, scorer, truth = adapter.feeds(splits.test.inputs(rows)), scorer_of(adapter.task), splits.test.truth(rows)
    fewer = {name: array[:-2] for name, array in feeds.items()}
    write_sample(tmp_path / "fewer.npz", fewer, truth)
    with pytest.raises(ConfigError, match="do not fit together"):
        read_sample(tmp_path / "fewer.npz", _inputs(feeds), scorer)
    for missing in set(truth) - scorer.optional:
        write_sample(tmp_path / "less.npz", feeds, {key: array for key, array in truth.items() if key != missing})
        with pytest.raises(ConfigError, match=f"is no sample.*{missing}"):
            read_sample(tmp_path / "less.npz", _inputs(feeds), scorer)


@pytest.mark.parametrize(
    ("task", "truth", "said"),
    [
        ("image-classification", {"labels": np.zeros(4)}, "float64"),
        ("sentence-similarity", {"scores": np.ones(2)}, "all alike"),
        ("sentence-similarity", {"scores": np.array([0, np.nan])}, "not finite"),
        ("object-detection", {"objects": np.full((4, 1, 5), -1)}, "no object"),
        ("object-detection", {"objects": np.zeros((4, 5))}, "objects (4, 5)"),
        ("object-detection", {"objects": np.zeros((4, 1, 5)), "regions": np.zeros((4, 5))}, "regions (4, 5)"),
    ],
)
def test_answers_that_judge_nothing_are_refused(task: str, truth: dict[str, Any], said: str) -> None:
    assert said in str(scorer_of(task).problem(truth, 4))


def test_questions_that_are_not_there_are_refused() -> None:
    scorer = scorer_of("question-answering")
    truth = {
        "question": np.array([0, 1]),
        "characters": np.zeros((2, 8, 2), np.int32),
        "contexts": np.array(["a", "b"]),
        "answers": np.array(['["a"]', "[]"]),
    }
    assert scorer.problem(truth, 2) is None
    for change, said in (
        ({"question": np.array([0, 2])}, "from 0 to 1"),
        ({"answers": np.array(["a", "[]"])}, "no JSON"),
        ({"answers": np.array(['"a"', "[]"])}, "no lists"),
        ({"contexts": np.array(["a"])}, "contexts"),
    ):
        assert said in str(scorer.problem(truth | change, 2))


def test_boxes_of_more_classes_than_the_network_has_are_refused() -> None:
    truth = {"objects": np.array([[[7, 1, 1, 5, 5]]])}
    with pytest.raises(ConfigError, match="a class 7, the network has the classes 0 to 1"):
        scorer_of("object-detection").score([np.zeros((1, 3, 7), np.float32)], truth, "mAP")


def test_an_unknown_task_is_refused_with_what_is_known() -> None:
    assert type(scorer_of("tabular-classification")).__name__ == "ClassScorer"
    with pytest.raises(ConfigError, match=r"depth-estimation is scored.*object-detection.*Leave the sample out"):
        scorer_of("depth-estimation")


def test_embeddings_that_point_nowhere_correlate_with_nothing() -> None:
    found = scorer_of("sentence-similarity").score([np.zeros((6, 4), np.float32)], {"scores": np.arange(3)}, "Spearman")
    assert found.value == 0

"""Bundles of language networks take texts: the same tokens, outputs and answers as where they were made."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calibration.questions import Question, cut_windows
from calibration.tokens import TOKENIZER, TextEncoder
from pipeline import load_bundle
from pipeline.models.inference import torch_predict
from pipeline.models.language import QuestionAnswering, SentenceEmbedding, TextClassification
from pipeline.models.pretrained import find_pretrained
from pipeline.scoring.answers import best_answers
from pipeline.serving.errors import InputError
from pipeline.serving.texts import TextReader
from targets.errors import ArtifactError
from tests.command import pipeline
from tests.pretrained import save_model
from tests.serving.bundles import bundle_of, make_bundle

CONTEXT = "A quick fox jumps over the lazy dog. " * 12 + "The brown dog sees a good fox!"
LENGTH = 32


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("qa"), "AutoModelForQuestionAnswering")
    asked = [{"id": "1", "question": "who sees?", "answers": [{"text": "quick fox", "answer_start": 2}]}]
    paragraphs = [{"context": f"{CONTEXT} {'dog ' * n}", "qas": asked} for n in range(8)]
    (folder / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    adapter = QuestionAnswering()
    return folder, adapter, *bundle_of(folder, adapter, folder, folder / "squad.json", LENGTH)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    labels = {"id2label": {0: "bad", 1: "good"}, "label2id": {"bad": 0, "good": 1}}
    folder = save_model(tmp_path_factory.mktemp("cls"), "AutoModelForSequenceClassification", **labels)
    rows = [f"{'the ' * (n // 2)}{('bad', 'good')[n % 2]} dog,{('bad', 'good')[n % 2]}\n" for n in range(24)]
    (folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    adapter = TextClassification()
    return folder, adapter, *bundle_of(folder, adapter, folder, folder / "texts.csv", LENGTH)


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    folder = save_model(tmp_path_factory.mktemp("sts"), kind="roberta")
    (folder / "sts.csv").write_text("".join(f"the {'quick ' * n} fox,a dog,{n % 6}\n" for n in range(20)))
    adapter = SentenceEmbedding()
    return folder, adapter, *bundle_of(folder, adapter, folder, folder / "sts.csv", LENGTH)


def _encoder(folder: Path) -> TextEncoder:
    found = find_pretrained(folder)
    return TextEncoder(found.tokenizer, LENGTH, found.tensors)


@pytest.mark.parametrize(
    "text",
    ["", "the quick fox", "Dog! SEES\ta ... fox?", "quick " * 80, "\u00e9t\u00e9 \U0001f98a", ("a dog", "the fox")],
)
def test_tokens_are_those_of_the_data(texts, text):
    folder, _, bundle, *_ = texts
    encoder = _encoder(folder)
    expected = encoder([text]) if isinstance(text, str) else encoder([text[0]], [text[1]])
    found = TextReader(bundle / TOKENIZER, encoder.names).tokens([text])
    assert list(found) == ["input_ids", "attention_mask", "token_type_ids"]
    np.testing.assert_array_equal(np.stack(list(found.values()), axis=1), expected)


@pytest.mark.parametrize("question", ["who sees?", " who ", "", "quick fox " * 20])
def test_windows_are_those_of_the_data(questions, question):
    folder, _, bundle, *_ = questions
    encoder = _encoder(folder)
    expected = cut_windows([Question("1", question, CONTEXT, ())], encoder)
    _, found = TextReader(bundle / TOKENIZER, encoder.names).windows(question, CONTEXT)
    assert len(expected.tokens) > 5
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.characters, expected.characters)


def test_a_text_becomes_its_embedding(sentences):
    _, adapter, bundle, network, _ = sentences
    predict = torch_predict(adapter.deployed(network), adapter.feeds)
    (expected,) = predict(_encoder(sentences[0])(["the quick dog"]).astype(np.int64))
    with load_bundle(bundle) as model:
        assert model("the quick dog") == pytest.approx(expected[None], abs=1e-4)
        assert model.predict("the quick dog") == pytest.approx(expected, abs=1e-4)
        assert model(["a fox", "the quick dog", ""]).shape == (3, 16)
        with pytest.raises(InputError, match="no classifier"):
            model.classify(model("a"))


def test_a_text_becomes_its_classes(texts, tmp_path):
    _, adapter, bundle, network, _ = texts
    logits = torch_predict(adapter.deployed(network), adapter.feeds)(_encoder(texts[0])(["good dog"]).astype(np.int64))
    with load_bundle(bundle) as model:
        scores = model.predict("good dog")
    assert scores[0].name == ("bad", "good")[int(logits.argmax())]
    assert scores[0].probability == pytest.approx(float(np.exp(logits).max() / np.exp(logits).sum()), abs=1e-4)
    answer = json.loads(pipeline("predict", bundle, "good dog", "--json", cwd=tmp_path).stdout)
    assert answer["predictions"][0][0] == {"class": scores[0].name, "probability": pytest.approx(scores[0].probability)}


def test_a_question_gets_the_answer_that_is_judged(questions, tmp_path):
    _, adapter, bundle, network, _ = questions
    asked = [Question("1", "who sees?", CONTEXT, (("fox", 8),))]
    windows = cut_windows(asked, _encoder(questions[0]))
    logits = torch_predict(adapter.deployed(network), adapter.feeds)(windows.tokens.astype(np.int64))
    (expected,) = best_answers(asked, windows, logits)
    with load_bundle(bundle) as model:
        answer = model.predict(("who sees?", CONTEXT))
        assert answer.text == expected == CONTEXT[answer.start : answer.end] != ""
        with pytest.raises(InputError, match=r"\(question, context\)"):
            model.predict("who sees?")
    (tmp_path / "context.txt").write_text(CONTEXT)
    for given in (CONTEXT, "context.txt"):
        told = pipeline("predict", bundle, "who sees?", "--context", given, "--json", cwd=tmp_path)
        assert json.loads(told.stdout)["predictions"] == [answer.to_json()], told.stderr
    assert answer.text in pipeline("predict", bundle, "who sees?", "--context", CONTEXT, cwd=tmp_path).stderr


def test_texts_need_neither_torch_nor_transformers(sentences):
    code = (
        "import sys\n"
        "from pipeline import load_bundle\n"
        "print(load_bundle(sys.argv[1])('a quick fox').shape)\n"
        "heavy = {'torch', 'transformers', 'onnx', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, sentences[2]], capture_output=True, text=True, check=False)
    assert done.stdout == "(1, 16)\n", done.stderr


def test_what_takes_no_texts_and_what_is_none(tmp_path, sentences):
    with load_bundle(make_bundle(tmp_path)) as model, pytest.raises(InputError, match="takes no texts"):
        model("a quick fox")
    with load_bundle(sentences[2]) as model:
        with pytest.raises(InputError, match="is no text"):
            model.predict(7)
        with pytest.raises(InputError, match="takes no images"):
            model.preprocess(np.zeros((4, 4, 3), np.uint8))
    (tmp_path / TOKENIZER).write_text("{}")
    with pytest.raises(ArtifactError, match="no tokenizer"):
        TextReader(tmp_path / TOKENIZER, ["input_ids"])

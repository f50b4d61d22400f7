"""What users give that cannot work: said before anything is measured, with what to do."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.cli import main
from pipeline.models.yolov5 import SIZES, YoloV5
from tests.calibration.detection_data import write_coco
from tests.pretrained import WORDS, save_model, save_tokenizer

STS = "".join(f"the {'quick ' * n} fox,a dog,{n % 6}\n" for n in range(12))
SQUAD = {"context": "a quick fox", "qas": [{"id": "q7", "question": "who?", "answers": [{"text": "an owl"}]}]}


def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """The error of a run that must be a usage error."""
    given = ("run", "--target", "auto", "--runtime", "onnxruntime", "--speedup", 2, "--json", *arguments)
    monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, given)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert not list(Path("runs").glob("*/run.json"))  # or a mistake would own the folder
    return str(json.loads(capsys.readouterr().out)["error"])


@pytest.fixture
def refuse(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: refused(capsys, monkeypatch, *arguments)


@pytest.fixture
def detector(tmp_path):
    with torch.device("meta"):
        shapes = YoloV5(SIZES["yolov5:n"], 5).state_dict()
    save_file({name: torch.zeros(t.shape) for name, t in shapes.items()}, tmp_path / "five.safetensors")
    data = write_coco(tmp_path / "pets")
    return ("--model", "yolov5:n", "--weights", tmp_path / "five.safetensors", "--data", data), data


def test_wrong_number_of_classes(refuse, detector):
    said = refuse(*detector[0], "--input-size", 64)
    assert "knows 5 classes, the data 'pets' has 2: give --data all the classes" in said


def test_auto_looks_at_what_was_given_before_the_folder_is_taken(refuse, detector):
    said = refuse(*detector[0], "--input-size", 64, "--runtime", "auto", "--no-install")
    assert "knows 5 classes" in said


def test_image_size_that_is_no_multiple_of_32(refuse, detector):
    assert "give --input-size a multiple of 32, such as 320 or 352" in refuse(*detector[0], "--input-size", 333)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 5}, "unknown category 5. Add it to the file's categories"),
        ({"bbox": [10, 5, 0, 20]}, "the empty box [10.0, 5.0, 0.0, 20.0]"),
        ({"image_id": 99}, "there is no such image in the file"),
    ],
)
def test_annotations_that_cannot_be_true(refuse, detector, change, words):
    path = detector[1] / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0] |= change
    path.write_text(json.dumps(content))
    assert words in refuse(*detector[0])


def test_annotated_images_that_are_not_there(refuse, detector):
    (detector[1] / "train2017" / "001.png").unlink()
    assert "names 1 images that are not there (001.png). Put them back" in refuse(*detector[0])


def test_answers_that_are_not_in_their_context(refuse, tmp_path):
    SQUAD["qas"][0]["answers"][0]["answer_start"] = 2
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [SQUAD]}]}))
    weights = save_model(tmp_path / "qa", "AutoModelForQuestionAnswering")
    said = refuse("--model", "bert:qa", "--weights", weights, "--data", tmp_path / "squad.json")
    assert "the answer 'an owl' to question q7 is not at character 2" in said
    assert "Correct answer_start or the text, or remove the question" in said


def test_sequences_longer_than_the_model_and_a_tokenizer_of_another(refuse, tmp_path):
    (tmp_path / "sts.csv").write_text(STS)
    weights = save_model(tmp_path / "minilm")
    given = ("--model", "bert:embedding", "--weights", weights, "--data", tmp_path / "sts.csv")
    assert "--input-size 128 asks for 128 tokens a sequence" in refuse(*given, "--input-size", 128)
    save_tokenizer(weights, (*WORDS, "owl"))
    said = refuse(*given)
    assert "the tokenizer has 102 tokens, the model knows 101" in said
    assert "Copy the tokenizer that the model was trained with" in said


def test_an_adapter_that_misses_a_method(refuse, tmp_path):
    (tmp_path / "halfway.py").write_text("class Half:\n    name = 'half'\n\ndef make():\n    return Half()\n")
    said = refuse("--model", "halfway:make")
    assert "Half that is no adapter yet. It lacks:" in said
    assert "calibration_loss(outputs, dense_outputs)" in said
    assert "docs/your-model.md" in said

"""Every family's own recipe: gradual pruning by it ends at the plan's zeros, and nearer to the dense network."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from calibration.datasets import Splits
from pipeline.models.base import ModelAdapter
from pipeline.models.detection import YoloAdapter
from pipeline.models.language import QuestionAnswering, SentenceEmbedding, TextClassification
from pipeline.models.yolov5 import Size, YoloV5
from pipeline.training.gradual import Goal, GradualSettings, gradual_prune
from pipeline.training.masks import apply_masks, magnitude_mask
from tests.calibration.detection_data import write_coco
from tests.pretrained import save_model

SPARSITY = 0.8
EPOCHS = 10
CONTEXT = "a quick fox jumps over the lazy dog. "
Family = tuple[ModelAdapter, nn.Module, Splits]


def detector(folder: Path) -> Family:
    size = Size("yolov5:tiny", 0.33, 0.125, 0.5)
    adapter = YoloAdapter(size)
    torch.manual_seed(0)
    network, splits = YoloV5(size, 2), adapter.load_data(write_coco(folder / "pets"), None, 64)
    inputs = torch.from_numpy(splits.train.inputs(np.arange(len(splits.train))))
    with torch.no_grad():  # statistics as after a training: outputs of a fresh network are its biases
        for _ in range(100):
            network.train()(inputs)
    return adapter, network.eval(), splits


def questions(folder: Path) -> Family:
    save_model(folder, "AutoModelForQuestionAnswering")
    answers = [{"text": "quick fox", "answer_start": 2}]
    asked = [{"id": str(number), "question": "who jumps?", "answers": answers} for number in range(24)]
    paragraphs = [{"context": CONTEXT + "dog " * number, "qas": [question]} for number, question in enumerate(asked)]
    (folder / "squad.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return opened(QuestionAnswering(), folder, folder / "squad.json")


def texts(folder: Path) -> Family:
    save_model(folder, "AutoModelForSequenceClassification", id2label={0: "bad", 1: "good"})
    rows = [f"the {('lazy', 'quick')[n % 2]} dog,{('bad', 'good')[n % 2]}\n" for n in range(24)]
    (folder / "texts.csv").write_text("text,label\n" + "".join(rows))
    return opened(TextClassification(), folder, folder / "texts.csv")


def sentences(folder: Path) -> Family:
    save_model(folder)
    rows = [f"the {'quick ' * (n % 5)} fox,a {'lazy ' * (n % 3)} dog,{n % 6}\n" for n in range(24)]
    (folder / "sts.csv").write_text("".join(rows))
    return opened(SentenceEmbedding(), folder, folder / "sts.csv")


def opened(adapter: Any, weights: Path, data: Path) -> Family:
    splits = adapter.load_data(data, weights, 32)
    return adapter, adapter.load(weights, splits), splits


@pytest.mark.parametrize("make", [detector, questions, texts, sentences])
def test_a_family_is_pruned_gradually_by_its_recipe(make: Any, tmp_path: Path) -> None:
    adapter, dense, splits = make(tmp_path)
    recipe = adapter.recipe
    everything = np.arange(len(splits.train))
    batch = splits.train.batch(everything, np.random.default_rng(0))
    units = adapter.units(dense, torch.from_numpy(batch.inputs[:1]))
    goal = Goal({unit.name: SPARSITY for unit in units if unit.prunable})
    cut, trained = copy.deepcopy(dense), copy.deepcopy(dense)
    apply_masks(cut, {name: magnitude_mask(cut.get_submodule(name).weight, SPARSITY) for name in goal.sparsities})
    settings = GradualSettings(
        epochs=EPOCHS,
        batch_size=min(recipe.training_batch, len(everything)) // 2,
        optimizer=recipe.optimizer,
        peak_lr=recipe.peak_lr,
        weight_decay=recipe.weight_decay,
        block_weight=recipe.training_block_weight,
    )
    blocks = adapter.blocks(trained)
    record = gradual_prune(
        trained, dense, goal, splits.train, adapter.training_loss, adapter.training_score, settings, blocks=blocks
    )
    assert record.steps == EPOCHS * (len(everything) // settings.batch_size)
    for name in goal.sparsities:
        zeros = (trained.get_submodule(name).weight == 0).float().mean().item()
        assert zeros == pytest.approx(SPARSITY, abs=0.01)
    inputs = torch.from_numpy(batch.inputs)
    with torch.no_grad():
        errors = [_mean_square(network.eval()(inputs), dense(inputs)) for network in (trained, cut)]
    assert errors[0] < errors[1]


def _mean_square(outputs: torch.Tensor, expected: torch.Tensor) -> float:
    return float((outputs - expected).square().mean())

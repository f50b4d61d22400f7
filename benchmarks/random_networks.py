"""Full-size networks with random weights and a little data, for benchmarks of time and memory.

Where the zeros are decides a latency, and the sizes of the layers what a database costs; neither asks what weights say.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from benchmarks.minilm import weights_folder
from benchmarks.runs import data_folder
from pipeline.models.checkpoints import write_weights
from pipeline.models.resnet import VARIANTS
from pipeline.models.yolov5 import SIZES, YoloV5

CLASSES, IMAGES, PIXELS = 2, 32, 224
PARAGRAPHS = 24
"""Of SQuAD's file that make BERT's data."""


@dataclass(frozen=True)
class RandomNetwork:
    """A network of random weights.

    Args:
        model: the adapter's name.
        input_size: pixels or tokens.
        write: puts weights and data into a folder, unless they are there; their paths.
    """

    model: str
    input_size: int
    write: Callable[[Path], tuple[Path, Path]]

    def settings(self, folder: Path) -> dict[str, Any]:
        """Settings of a run on it; ``folder`` keeps its files."""
        weights, data = self.write(folder)
        size = {} if self.model.startswith("resnet") else {"input_size": self.input_size}
        return {"model": self.model, "weights": weights, "data": data, **size}


def _resnet50(folder: Path) -> tuple[Path, Path]:
    weights, images = folder / "resnet50.safetensors", folder / "images"
    if weights.exists():
        return weights, images
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    write_images(images)
    write_weights(VARIANTS["resnet:50"].build(CLASSES, 3).state_dict(), weights)
    return weights, images


def write_images(folder: Path) -> None:
    """Noise of two classes."""
    rng = np.random.default_rng(0)
    for number in range(2 * IMAGES):
        path = folder / ("train" if number < IMAGES else "test") / f"class{number % CLASSES}"
        path.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{number}.png")


def _yolov5s(folder: Path) -> tuple[Path, Path]:
    weights = folder / "yolov5s.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(YoloV5(SIZES["yolov5:s"], 80).state_dict(), weights)
    return weights, data_folder() / "coco"


def _bert_base(folder: Path) -> tuple[Path, Path]:
    from transformers import BertConfig, BertForQuestionAnswering
    from transformers.utils import logging

    data = folder / "data" / "squad.json"
    if data.exists():
        return folder, data
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    BertForQuestionAnswering(BertConfig()).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(weights_folder() / name, folder)
    content = json.loads((data_folder() / "squad" / "xquad.en.json").read_text())
    paragraphs = [part for article in content["data"] for part in article["paragraphs"]][:PARAGRAPHS]
    data.parent.mkdir(exist_ok=True)
    data.write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    return folder, data


NETWORKS = {
    "resnet50": RandomNetwork("resnet:50", PIXELS, _resnet50),
    "yolov5s": RandomNetwork("yolov5:s", 640, _yolov5s),
    "bert-base": RandomNetwork("bert:qa", 384, _bert_base),
}

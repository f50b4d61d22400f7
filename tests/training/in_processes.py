"""Trains a small network by gradual pruning, in as many processes as a launcher starts, and writes it to a file.

python -m tests.training.in_processes FILE
"""

import copy
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from calibration.datasets import Batch
from pipeline.training import gradual
from pipeline.training.gradual import Goal, GradualSettings, gradual_prune
from tests.training.networks import ADAPTER, DATA

SETTINGS = GradualSettings(epochs=2, batch_size=32, peak_lr=0.1, mask_interval=2)
PLAN = {"1": 0.6}


class Plain:
    """The stripes without augmentation, whose numbers would be drawn for each process by itself."""

    labels = DATA.train.labels
    most = 0
    """Rows that were asked for at once."""

    def __len__(self) -> int:
        return len(DATA.train)

    def batch(self, indices: NDArray[np.int64], rng: np.random.Generator) -> Batch:
        self.most = max(self.most, len(indices))
        return Batch(DATA.train.inputs(indices), DATA.train.labels[indices])


def main(path: Path) -> None:
    gradual.fast_autocast = lambda _: nullcontext()  # sums of halves are those of the whole in full precision alone
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    dense, split = copy.deepcopy(model), Plain()
    arguments: Any = (Goal(PLAN), split, ADAPTER.training_loss, ADAPTER.training_score, SETTINGS)
    record = gradual_prune(model, dense, *arguments, path.with_suffix(".pt"))
    if os.environ.get("RANK", "0") == "0":
        loss, processes = torch.tensor(record.history[-1].loss), torch.tensor(PartialState().num_processes)
        save_file({**model.state_dict(), "loss": loss, "processes": processes, "rows": torch.tensor(split.most)}, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Gradual pruning to a plan: sparsity grows while the network trains, taught by the dense one."""

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.datasets import Split
from calibration.padding import real_positions
from pipeline.models.inference import channels_last, fast_autocast, in_channels_last
from pipeline.training.blocks import Outputs, block_error, captured
from pipeline.training.chance import seed_layers
from pipeline.training.masks import Masks, apply_masks, magnitude_mask, planned_mask, sparsity
from pipeline.training.schedule import cosine_lr, cubic_sparsity
from targets.errors import ArtifactError
from targets.files import write_atomically

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Scalar loss of outputs, dense outputs and labels; `ModelAdapter.training_loss`."""

LEAST_CHOICES = 8
"""Times that the masks are chosen anew while the sparsity grows, however short the training."""

ScoreOf = Callable[[Tensor, Tensor], Tensor]
"""[n] how right each output is, given the labels; `ModelAdapter.training_score`."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What a network becomes.

    Args:
        sparsities: fraction of zeros by unit; units left out stay dense.
        planned: masks of those units whose zeros are chosen already, such as whole channels; in the others the smallest
            weights go.
        arithmetic: around every step's passes once all zeros are there: what the network will compute in, such as int8.
    """

    sparsities: Mapping[str, float]
    planned: Masks = field(default_factory=dict)
    arithmetic: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True, slots=True)
class GradualSettings:
    """How to prune gradually.

    Args:
        epochs: passes over the training split.
        first_sparsity: at the first step.
        pruning_share: fraction of the steps in which the sparsity grows.
        mask_interval: steps from one choice of the masks to the next while it grows; fewer in short trainings.
        batch_size: samples a step.
        optimizer: SGD with Nesterov's momentum, or AdamW.
        peak_lr: its largest learning rate.
        momentum: of SGD.
        weight_decay: of all parameters.
        block_weight: of the blocks' relative squared errors, summed, beside the loss of the outputs.
        checkpoint_s: seconds from one checkpoint to the next; what an interruption can lose.
        seed: of the order and the augmentation of the data.
    """

    epochs: int
    first_sparsity: float = 0.05
    pruning_share: float = 0.6
    mask_interval: int = 25
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    peak_lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 1e-4
    block_weight: float = 0.0
    checkpoint_s: float = 30.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """Where a training stands; loss and accuracy (the mean score) are averages over the epoch so far, on
    augmented training data.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    accuracy: float
    sparsity: float
    remaining_s: float


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Averages over one epoch of augmented training data, and the sparsity of the plan's units at its end."""

    epoch: int
    loss: float
    accuracy: float
    sparsity: float


@dataclass(frozen=True, slots=True)
class TrainingRecord:
    """What gradual pruning did."""

    settings: GradualSettings
    steps: int
    resumed_at_step: int
    seconds: float
    history: tuple[EpochRecord, ...]


def gradual_prune(
    model: nn.Module,
    dense: nn.Module,
    goal: Goal,
    split: Split,
    loss: Loss,
    score: ScoreOf,
    settings: GradualSettings,
    checkpoint: Path | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    blocks: Sequence[str] = (),
) -> TrainingRecord:
    """Train ``model``, in place, until every unit has exactly the sparsity of the goal.

    Masks follow the cubic schedule unit by unit, then stay; the learning rate follows a cosine. The order and
    the augmentation of the data depend on the seed and the step alone, so that a run resumed from its checkpoint ends
    in the same network as one that was never interrupted.

    Args:
        model: network to prune; ends in eval mode on the CPU.
        dense: teacher, not changed.
        goal: what it becomes.
        split: training data.
        loss: of outputs, dense outputs and labels.
        score: of outputs and labels, to show how the training goes.
        settings: see there.
        checkpoint: file to resume from and to write to; None keeps nothing.
        progress: called after every step.
        blocks: names of the modules whose outputs also learn from the teacher's, by ``settings.block_weight``.

    In several processes, as accelerate's launcher or torchrun start them, each takes its part of every batch, and all
    end with the same weights; the first writes the checkpoints and reports progress.

    Raises:
        ArtifactError: the checkpoint is broken or another run's; the loss is not finite.
        ValueError: there are fewer samples than one batch needs, the epochs are not positive, or the batch does not
            fall into as many equal parts as there are processes.
    """
    trainer = _Trainer(model, dense, goal, split, loss, score, settings)
    resumed_at = trainer.resume(checkpoint) if checkpoint and checkpoint.exists() else 0
    started = saved = time.monotonic()
    taught = blocks if settings.block_weight else ()
    with channels_last(model, dense), captured(model, taught) as ours, captured(dense, taught) as theirs:
        while trainer.step < trainer.steps:
            trainer.run_step(ours, theirs)
            now = time.monotonic()
            if not trainer.is_first:
                continue
            if checkpoint and (now - saved >= settings.checkpoint_s or trainer.step == trainer.steps):
                trainer.save(checkpoint)
                saved = now
            if progress:
                progress(trainer.report((now - started) / (trainer.step - resumed_at)))
    trainer.finish()
    seconds = time.monotonic() - started
    return TrainingRecord(settings, trainer.steps, resumed_at, seconds, tuple(trainer.history))


class _Trainer:
    """The parts of one training: network, teacher, optimizer, masks, and the averages of the epoch."""

    def __init__(
        self,
        model: nn.Module,
        dense: nn.Module,
        goal: Goal,
        split: Split,
        loss: Loss,
        score: ScoreOf,
        settings: GradualSettings,
    ) -> None:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs

        self._steps_an_epoch = len(split) // settings.batch_size
        self.steps = settings.epochs * self._steps_an_epoch
        if self.steps < 1:
            raise ValueError(f"{settings.epochs} epochs of {len(split)} samples have no batch of {settings.batch_size}")
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # such as the pooler of an embedding's BERT
        self._accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[unused])
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started != self._accelerator.num_processes:
            raise ValueError(
                f"{started} processes were started, and accelerate knows {self._accelerator.num_processes}"
            )
        if settings.batch_size % self._accelerator.num_processes:
            raise ValueError(
                f"a batch of {settings.batch_size} does not fall into {self._accelerator.num_processes} equal parts"
            )
        self._settings, self._goal, self._split = settings, goal, split
        self._growing = min(round(settings.pruning_share * self.steps), self.steps - 1)
        self._loss, self._score = loss, score
        self._model, self._optimizer = self._accelerator.prepare(model, _optimizer(model, settings))
        self._bare = model
        self._dense = dense.eval().to(self._accelerator.device)
        self._planned = {unit: mask.to(self._accelerator.device) for unit, mask in goal.planned.items()}
        self._masks: Masks = {}
        self._sums = _Sums()
        self.step = 0
        self.history: list[EpochRecord] = []

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return bool(self._accelerator.is_main_process)

    def run_step(self, blocks: Outputs, dense_blocks: Outputs) -> None:
        """One batch: masks and learning rate by their schedules, gradients, update, masks again.

        Args:
            blocks: where the outputs of the network's blocks come to lie as it runs.
            dense_blocks: the same of the teacher; both empty where none are compared.
        """
        self._follow_schedules()
        inputs, labels = self._batch()
        self._model.train()
        seed_layers(self._settings.seed, self.step, self._accelerator.process_index)
        with torch.no_grad(), fast_autocast(inputs.device.type):
            dense_outputs = self._dense(inputs)
        with self._goal.arithmetic() if self.step >= self._growing else nullcontext():
            with fast_autocast(inputs.device.type):
                outputs = self._model(inputs)
            loss = self._loss(outputs, dense_outputs, labels)
            if dense_blocks:
                distance = block_error(blocks, dense_blocks, real_positions(self._bare, inputs))
                loss = loss + self._settings.block_weight * distance
            self._accelerator.backward(loss)
        self._optimizer.step()
        self._optimizer.zero_grad()
        apply_masks(self._bare, self._masks)
        with torch.no_grad():
            seen = torch.stack([loss.detach(), self._score(outputs, labels).mean()]).float()
        self._count(*self._accelerator.reduce(seen, "mean").tolist())

    def report(self, seconds_a_step: float) -> TrainingProgress:
        """Where the training stands."""
        averages = self._sums.averages() if self._sums.batches else (self.history[-1].loss, self.history[-1].accuracy)
        epoch = (self.step - 1) // self._steps_an_epoch
        remaining_s = seconds_a_step * (self.steps - self.step)
        return TrainingProgress(self.step, self.steps, epoch, *averages, sparsity(self._masks), remaining_s)

    def finish(self) -> None:
        """Leave the networks on the CPU and in eval mode."""
        self._bare.cpu().eval()
        self._dense.cpu()

    def save(self, path: Path) -> None:
        """Write everything that the next step depends on."""
        content = {
            "key": self._key(),
            "step": self.step,
            "model": self._bare.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "masks": self._masks,
            "sums": asdict(self._sums),
            "history": [asdict(epoch) for epoch in self.history],
        }
        file = io.BytesIO()
        torch.save(content, file)
        write_atomically(path, file.getvalue())

    def resume(self, path: Path) -> int:
        """Go on from what `save` wrote; the step that it was written after."""
        try:  # tensors and plain values only; accelerate's own load_state would run whatever a pickle holds
            content = torch.load(path, map_location=self._accelerator.device, weights_only=True)
            key = content["key"]
        except Exception as error:  # torch raises many kinds on damaged files
            raise ArtifactError(f"{path} is not a whole checkpoint; remove it to train from the beginning.") from error
        if key != self._key():
            raise ArtifactError(
                f"{path} is the checkpoint of a training with another plan, network, data or settings: "
                "give --out another folder, or remove the file to train from the beginning."
            )
        self._bare.load_state_dict(content["model"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.step, self._masks = content["step"], content["masks"]
        self._sums = _Sums(**content["sums"])
        self.history = [EpochRecord(**epoch) for epoch in content["history"]]
        return self.step

    def _key(self) -> str:
        """Hash of what decides the course of the training."""
        settings = asdict(self._settings)
        del settings["checkpoint_s"]
        shapes = {name: list(tensor.shape) for name, tensor in self._bare.state_dict().items()}
        labels = _sha256(self._split.labels)
        planned = {unit: _sha256(mask.cpu().numpy()) for unit, mask in self._goal.planned.items()}
        content = json.dumps([settings, dict(self._goal.sparsities), planned, shapes, labels], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def _follow_schedules(self) -> None:
        settings = self._settings
        for group in self._optimizer.param_groups:
            group["lr"] = cosine_lr(self.step, self.steps, settings.peak_lr, warmup=self.steps // 20)
        interval = min(settings.mask_interval, max(1, self._growing // LEAST_CHOICES))
        if self.step == self._growing or (self.step < self._growing and self.step % interval == 0):
            self._masks = {unit: self._mask(unit, final) for unit, final in self._goal.sparsities.items()}
            apply_masks(self._bare, self._masks)

    def _mask(self, unit: str, final: float) -> Tensor:
        """What stays of a unit's weights from this step on."""
        weight, planned = self._bare.get_parameter(f"{unit}.weight"), self._planned.get(unit)
        now = cubic_sparsity(self.step, self._growing, min(self._settings.first_sparsity, final), final)
        return magnitude_mask(weight, now) if planned is None else planned_mask(weight, planned, now)

    def _batch(self) -> tuple[Tensor, Tensor]:
        """This process's part of the step's inputs and labels; they depend on the seed and the step alone."""
        seed, size = self._settings.seed, self._settings.batch_size
        epoch, position = divmod(self.step, self._steps_an_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(self._split))
        part, parts = self._accelerator.process_index, self._accelerator.num_processes
        rows = order[position * size + part : (position + 1) * size : parts]
        batch = self._split.batch(rows, np.random.default_rng([seed, epoch, position, *([part] if part else [])]))
        device = self._accelerator.device
        inputs, labels = torch.from_numpy(batch.inputs).to(device), torch.from_numpy(batch.labels).to(device)
        return in_channels_last(inputs), labels

    def _count(self, loss: float, score: float) -> None:
        """Add a step to the averages, and close the epoch at its end."""
        if not math.isfinite(loss):
            raise ArtifactError(
                f"The loss of training step {self.step} is not finite: check the weights, or train more slowly."
            )
        self._sums.add(loss, score)
        self.step += 1
        if self.step % self._steps_an_epoch == 0:
            epoch = self.step // self._steps_an_epoch - 1
            self.history.append(EpochRecord(epoch, *self._sums.averages(), sparsity(self._masks)))
            self._sums = _Sums()


def _sha256(array: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _optimizer(model: nn.Module, settings: GradualSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), settings.peak_lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        model.parameters(), settings.peak_lr, settings.momentum, nesterov=True, weight_decay=settings.weight_decay
    )


@dataclass
class _Sums:
    """Sums over the batches of an epoch so far, all of one size."""

    loss: float = 0.0
    score: float = 0.0
    batches: int = 0

    def add(self, loss: float, score: float) -> None:
        """Count a batch with its mean loss and score."""
        self.loss += loss
        self.score += score
        self.batches += 1

    def averages(self) -> tuple[float, float]:
        """Loss and accuracy."""
        return self.loss / self.batches, self.score / self.batches

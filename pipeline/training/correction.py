"""Post-training correction: the compressed network learns to give what the dense one gives, without labels."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.batch_norm import reestimate_batch_norm
from calibration.calibration_set import CalibrationBatches, CalibrationSamples
from calibration.errors import DataError
from calibration.padding import real_positions
from pipeline.models.inference import channels_last, fast_autocast, in_channels_last
from pipeline.training.blocks import block_error, captured
from pipeline.training.chance import seed_layers
from pipeline.training.masks import Masks, apply_masks
from pipeline.training.schedule import cosine_lr
from targets.errors import ArtifactError
from targets.files import write_atomically

CHECKPOINT_S = 30.0
"""Of learning, from one checkpoint to the next."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""[n] loss of each sample's outputs against the dense network's; `ModelAdapter.calibration_loss`."""


@dataclass(frozen=True, slots=True)
class CorrectionSettings:
    """How to correct.

    Args:
        passes: over the calibration samples that are learnt from, at most.
        budget_s: seconds that learning may take: the passes of a large network end, and their schedule with them, when
            these are over. What is learnt then depends on how fast the machine is.
        lr: of Adam at the start; falls to zero along a cosine.
        batch_size: samples a step.
        block_weight: of the blocks' relative squared errors, summed, beside the loss of the outputs.
        held_out: fraction of the samples that only judge whether the corrected network is better.
        seed: of the samples' order, and of which ones are held out.
    """

    passes: int = 30
    budget_s: float = 600.0
    lr: float = 6e-3
    batch_size: int = 128
    block_weight: float = 25.0
    held_out: float = 1 / 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PassRecord:
    """Averages over one pass: of the outputs' loss and of the blocks' relative squared error."""

    number: int
    loss: float
    block_error: float


@dataclass(frozen=True, slots=True)
class CorrectionRecord:
    """What post-training correction did.

    Args:
        settings: it ran with.
        samples: that were learnt from.
        held_out_samples: that judged.
        loss_before: mean loss on the held-out samples, batch norm re-estimated but nothing else corrected.
        loss_after: the same after correction; None where learning diverged.
        kept: whether the corrected weights are better and were kept; else only batch norm was re-estimated.
        seconds: it took.
        history: pass by pass.
    """

    settings: CorrectionSettings
    samples: int
    held_out_samples: int
    loss_before: float
    loss_after: float | None
    kept: bool
    seconds: float
    history: tuple[PassRecord, ...]


def match_outputs(
    model: nn.Module,
    dense: nn.Module,
    samples: CalibrationSamples,
    blocks: Sequence[str],
    masks: Masks,
    loss: Loss,
    settings: CorrectionSettings,
    finish: Callable[[nn.Module], None] = lambda _: None,
    progress: Callable[[PassRecord, CorrectionSettings], None] | None = None,
    checkpoint: Path | None = None,
) -> CorrectionRecord:
    """Tune all of ``model``'s parameters, in place, until its outputs match the dense network's; zeros stay zeros.

    Minimises, with Adam, the loss of the outputs plus the squared error of every block's output relative to the
    dense block's squared output. Both networks see the same inputs, and every block its own network's, so that later
    blocks make up for earlier ones (after the global AdaPrune of Frantar & Alistarh, 2022). Batch norm uses the
    statistics of the batch while learning, and is re-estimated afterwards.

    Args:
        model: compressed network; ends in eval mode, corrected or, where that is not better, only with batch norm
            re-estimated.
        dense: network to match, left as it is.
        samples: of the calibration set.
        blocks: names of the modules whose outputs are matched.
        masks: by unit, of what stays.
        loss: of the outputs.
        settings: see there.
        finish: brings the learnt weights into the form that they ship in, in place, before they are judged.
        progress: called after every pass.
        checkpoint: file that an interrupted correction goes on from, named by all that this one depends on; it is
            written after passes, half a minute or more apart. None keeps nothing.

    Raises:
        ValueError: there are fewer than four samples.
        ArtifactError: the loss is not finite before anything was corrected.
    """
    if len(samples) < 4:
        raise ValueError(f"correction needs at least 4 calibration samples, not {len(samples)}")
    started = time.monotonic()
    order = np.random.default_rng(settings.seed).permutation(len(samples))
    judges, learnt = np.split(order, [max(1, round(settings.held_out * len(samples)))])
    judge = _Judge(
        dense, loss, samples.batches(settings.batch_size, judges), samples.batches(settings.batch_size, learnt)
    )
    loss_before = judge(model)
    if not np.isfinite(loss_before):
        raise ArtifactError("The compressed network's outputs are not finite: build the database again.")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = _State(model, torch.optim.Adam(model.parameters(), settings.lr), checkpoint)
    for record in _learn(state, dense, samples, learnt, blocks, masks, loss, settings):
        if progress:
            progress(record, settings)
    finish(model)
    loss_after = _finite(judge, model)
    kept = loss_after is not None and loss_after < loss_before
    if not kept:
        model.load_state_dict(before)
    counts, seconds = (len(learnt), len(judges)), time.monotonic() - started
    return CorrectionRecord(settings, *counts, loss_before, loss_after, kept, seconds, tuple(state.history))


def _finite(judge: "_Judge", model: nn.Module) -> float | None:
    """A network's loss; None of one whose outputs, or what its batch norm sees, are not finite."""
    try:
        loss = judge(model)
    except DataError:
        return None
    return loss if np.isfinite(loss) else None


@dataclass
class _State:
    """Where the passes stand, and what the next one depends on."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    path: Path | None
    history: list[PassRecord] = field(default_factory=list)
    learning_s: float = 0.0
    saved_s: float = 0.0

    def resume(self) -> None:
        """Go on from the checkpoint; one that is damaged is as good as none."""
        if self.path is None or not self.path.exists():
            return
        try:
            content = torch.load(self.path, weights_only=True)
            model, optimizer, history = (content[name] for name in ("model", "optimizer", "history"))
        except Exception:  # torch raises many kinds on damaged files
            return
        self.model.load_state_dict(model)
        self.optimizer.load_state_dict(optimizer)
        self.history = [PassRecord(**entry) for entry in history]
        self.learning_s = self.saved_s = content["learning_s"]

    def add(self, record: PassRecord, learning_s: float) -> None:
        """A pass is done; write a checkpoint if the last one is some time ago."""
        self.history.append(record)
        self.learning_s = learning_s
        if self.path is None or learning_s - self.saved_s < CHECKPOINT_S:
            return
        tensors = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        history = [asdict(entry) for entry in self.history]
        file = io.BytesIO()
        torch.save({**tensors, "history": history, "learning_s": learning_s}, file)
        write_atomically(self.path, file.getvalue())
        self.saved_s = learning_s


class _Judge:
    """Re-estimates a network's batch norm and gives its mean loss on the held-out samples, in float32."""

    def __init__(self, dense: nn.Module, loss: Loss, held_out: CalibrationBatches, learnt: CalibrationBatches) -> None:
        self._loss, self._held_out, self._learnt = loss, held_out, learnt
        self._expected = self._outputs(dense)

    def __call__(self, model: nn.Module) -> float:
        reestimate_batch_norm(model, self._learnt)
        return float(self._loss(self._outputs(model), self._expected).mean())

    def _outputs(self, model: nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(batch) for batch in self._held_out])


def _learn(
    state: _State,
    dense: nn.Module,
    samples: CalibrationSamples,
    learnt: NDArray[np.int64],
    blocks: Sequence[str],
    masks: Masks,
    loss: Loss,
    settings: CorrectionSettings,
) -> Iterator[PassRecord]:
    """Run the passes, one at a time, until the time is over; the last one may then be a part of one."""
    model, optimizer = state.model, state.optimizer
    state.resume()
    batches, started = -(-len(learnt) // settings.batch_size), None
    rng = np.random.default_rng([settings.seed, 1])
    for _ in state.history:  # its orders are used up
        rng.permutation(learnt)
    model.train()
    with channels_last(model, dense), captured(model, blocks) as ours, captured(dense, blocks) as theirs:
        for number in range(len(state.history), settings.passes):
            sums: list[tuple[float, float]] = []
            seed_layers(settings.seed, number)
            for positions in np.array_split(rng.permutation(learnt), batches):
                now = time.monotonic()
                started = started or now - state.learning_s
                done = (number + len(sums) / batches) / settings.passes
                done = max(done, (now - started) / settings.budget_s)
                if done >= 1:
                    break
                optimizer.param_groups[0]["lr"] = cosine_lr(done, 1.0, settings.lr)
                inputs = in_channels_last(torch.from_numpy(samples[positions]))
                with fast_autocast():
                    with torch.no_grad():
                        expected = dense(inputs)
                    outputs = model(inputs)
                output_loss = loss(outputs, expected).mean()
                distance = block_error(ours, theirs, real_positions(model, inputs))
                if not bool(torch.isfinite(output_loss + distance)):
                    return  # nothing more can be learnt, and no checkpoint shall hold it
                optimizer.zero_grad()
                (output_loss + settings.block_weight * distance).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                apply_masks(model, masks)
                sums.append((float(output_loss.detach()), float(distance.detach()) / max(1, len(blocks))))
            if not sums or started is None:
                return
            state.add(PassRecord(number, *np.mean(sums, axis=0).tolist()), now - started)
            yield state.history[-1]

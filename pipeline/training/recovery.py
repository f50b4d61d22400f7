"""What brings accuracy back once weights are gone: output matching, and gradual pruning when epochs are allowed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from calibration.batch_norm import reestimate_batch_norm
from calibration.calibration_set import labels_digest
from pipeline.compression.database import Database
from pipeline.compression.stitch import Stitcher
from pipeline.context import Run
from pipeline.families.int8 import Int8Training, round_network, round_weights
from pipeline.families.registry import int8_layers, layer_levels, structured_layers
from pipeline.models.checkpoints import write_weights
from pipeline.models.inference import in_channels_last
from pipeline.run_folder import digest, read_json, write_json
from pipeline.training.correction import CorrectionSettings, PassRecord, match_outputs
from pipeline.training.gradual import GradualSettings
from pipeline.training.gradual_training import goal_of, train, train_launched
from pipeline.training.layerwise import correct_layers
from pipeline.training.masks import nonzero_masks
from targets.levels import DENSE, Level

CORRECTED, CORRECTION = "corrected.safetensors", "correction.json"
CHECKPOINT, TRAINING = "checkpoint.safetensors", "training.json"
TRAINING_CHECKPOINTS = "training-*.pt"
JUDGING = 512
"""Training samples, at most, by which a trained network is compared with the corrected one."""
OnPass = Callable[[PassRecord], None]
"""Told of every pass of output matching."""


def finish_network(run: Run, plan: Mapping[str, Level]) -> None:
    """Prune gradually if asked → training.json; that network or, if better, the corrected one → checkpoint.safetensors.

    A short training may end below the corrected network, which was matched to the dense one's outputs. The
    training split decides, which favours the trained network, as whoever asks for epochs would: held-out data are for
    the certificate alone.
    """
    network = run.network(run.folder.file(CORRECTED))
    if run.config.epochs:
        trained, training = trained_network(run, plan, network)
        losses = training_losses(run, {"trained": trained, "corrected": in_int8(run, network, plan)})
        ships = losses["trained"] <= losses["corrected"]
        write_json(run.folder.file(TRAINING), {"schema": 1, **training, "losses": losses, "ships": ships})
        if ships:
            network = trained
        else:
            run.reporter.warn("the corrected network is better and ships: more --epochs may help")
    write_weights(network.state_dict(), run.folder.file(CHECKPOINT))


def training_losses(run: Run, networks: Mapping[str, nn.Module]) -> dict[str, float]:
    """Mean training loss of every network on the same training samples, augmented alike."""
    split, size = run.splits.train, run.adapter.recipe.training_batch
    rows = np.random.default_rng(run.config.seed).permutation(len(split))[:JUDGING]
    losses: dict[str, list[float]] = {name: [] for name in networks}
    for start in range(0, len(rows), size):
        batch = split.batch(rows[start : start + size], np.random.default_rng([run.config.seed, start]))
        inputs, labels = in_channels_last(torch.from_numpy(batch.inputs)), torch.from_numpy(batch.labels)
        with torch.no_grad():
            wanted = run.dense(inputs)
            for name, found in losses.items():
                found += [float(run.adapter.training_loss(networks[name](inputs), wanted, labels))] * len(batch.inputs)
    return {name: float(np.mean(found)) for name, found in losses.items()}


def shipped_accuracy(run: Run) -> float:
    """Score of what `recover` left as the checkpoint, on the held-out split in torch."""
    training = read_json(run.folder.file(TRAINING)) if run.config.epochs else {"ships": False}
    record = training if training["ships"] else read_json(run.folder.file(CORRECTION))
    return float(record["accuracy"])


def corrected_network(
    run: Run, plan: Mapping[str, Level], on_pass: OnPass | None = None, checkpoint: Path | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The stitched network with batch norm re-estimated and outputs matched to the dense one's, and what that did.

    Args:
        checkpoint: that matching goes on from where it was interrupted.
    """
    network = run.copy_of_dense()
    Stitcher(network, Database(run.folder.file("database")), units=run.units, ranges=run.ranges).apply(plan)
    recipe = run.adapter.recipe
    batches = run.calibration_samples.batches(recipe.training_batch)
    if run.config.layer_correction != "none":
        changed = [layer for layer, level in layer_levels(run.units, plan).items() if level != DENSE]
        _correct_layers(run, network, changed, batches)
    reestimate_batch_norm(network, batches)
    record: dict[str, Any] = {
        "layers": run.config.layer_correction,
        "batch_norm": "re-estimated on the calibration set",
        "history": [],
    }
    passes = run.config.correction_passes
    if passes:
        record |= _matched(run, network, plan, passes, on_pass, checkpoint)
    record["accuracy"] = accuracy_of(run, in_int8(run, network, plan))
    return network, record


def _matched(
    run: Run,
    network: nn.Module,
    plan: Mapping[str, Level],
    passes: int,
    on_pass: OnPass | None,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Match the network's outputs, and what a record says of that."""
    recipe, config = run.adapter.recipe, run.config
    settings = CorrectionSettings(
        passes=passes,
        budget_s=config.correction_budget,
        lr=recipe.correction_lr,
        batch_size=recipe.training_batch,
        block_weight=recipe.block_weight,
        seed=config.seed,
    )
    with run.reporter.task("matching outputs", passes) as task:

        def show(done: PassRecord, _: CorrectionSettings) -> None:
            task.update(done.number + 1, f"loss {done.loss:.4f}")
            if on_pass:
                on_pass(done)

        corrected = match_outputs(
            network,
            run.dense,
            run.calibration_samples,
            run.adapter.blocks(network),
            nonzero_masks(network, compressed_layers(run, plan)),
            run.adapter.calibration_loss,
            settings,
            finish=lambda learnt: _round(run, learnt, plan),
            progress=show,
            checkpoint=checkpoint,
        )
    done = len(corrected.history)
    if done < passes:
        run.reporter.say(
            f"matching outputs ended in pass {done} of {passes}, after {config.correction_budget:g} s: "
            "--correction-budget SECONDS gives it more"
        )
    history = [{"step": entry.number + 1, **asdict(entry)} for entry in corrected.history]
    return asdict(corrected) | {"history": history}


def _correct_layers(run: Run, network: nn.Module, layers: Sequence[str], batches: Iterable[Tensor]) -> None:
    weights = run.config.layer_correction == "sequential"
    if not weights:
        layers = [name for name in layers if getattr(network.get_submodule(name), "bias", None) is not None]
        if not layers:
            run.reporter.warn("--layer-correction bias changes nothing: no layer of the plan has a bias")
            return
    with run.reporter.task("correcting layers", len(layers)) as task:
        correct_layers(
            network, run.dense, layers, batches, weights, progress=lambda done, name: task.update(done, name)
        )


def trained_network(run: Run, plan: Mapping[str, Level], network: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """Gradual pruning from the dense network towards the plan, in the plan's arithmetic once all zeros are there.

    Args:
        network: the corrected one, whose channels are those that stay.

    Returns:
        The network, and a record with its ``accuracy``.
    """
    recipe = run.adapter.recipe
    settings = GradualSettings(
        epochs=run.config.epochs,
        batch_size=min(recipe.training_batch, len(run.splits.train)),
        optimizer=recipe.optimizer,
        peak_lr=recipe.peak_lr,
        weight_decay=recipe.weight_decay,
        block_weight=recipe.training_block_weight,
        seed=run.config.seed,
    )
    sparsities, structured = compressed_layers(run, plan), structured_layers(run.units, plan)
    data = labels_digest(run.splits.train), run.calibration.sha256  # its samples stand for the others' content
    identity = digest(run.model_key, sparsities, structured, int8_layers(run.units, plan), asdict(settings), *data)
    checkpoint = run.folder.file(f"training-{identity[:12]}.pt")
    for other in run.folder.path.glob(TRAINING_CHECKPOINTS):
        if other != checkpoint:  # of a plan that a certificate showed to be too slow
            other.unlink()
    in_processes = run.config.launcher and run.ranges is None  # layers in int8 learn with the ranges of this process
    if run.config.launcher and not in_processes:
        run.reporter.warn("--launcher is left out: layers in int8 are trained in this process")
    if run.config.launcher and in_processes:
        student, record = train_launched(run, run.config.launcher, settings, sparsities, structured, checkpoint)
    else:
        student, goal = run.copy_of_dense(), goal_of(sparsities, structured, network)
        if run.ranges is not None:
            goal = replace(goal, arithmetic=Int8Training(student, int8_layers(run.units, plan), run.ranges))
        record = asdict(train(run, student, settings, goal, checkpoint))
    accuracy = accuracy_of(run, in_int8(run, student, plan))
    run.reporter.say(f"after {settings.epochs} epochs: {run.adapter.metric} {accuracy:.2%}")
    return student, record | {"accuracy": accuracy}


def compressed_layers(run: Run, plan: Mapping[str, Level]) -> dict[str, float]:
    """Layers that the plan takes weights from, and which share of them."""
    return {layer: level.amount for layer, level in layer_levels(run.units, plan).items() if level.amount > 0}


def in_int8(run: Run, network: nn.Module, plan: Mapping[str, Level]) -> nn.Module:
    """The network, whose layers that the plan has in int8 now compute in it."""
    if run.ranges is not None:
        round_network(network, int8_layers(run.units, plan), run.ranges)
    return network


def _round(run: Run, network: nn.Module, plan: Mapping[str, Level]) -> None:
    if run.ranges is not None:
        round_weights(network, int8_layers(run.units, plan), run.ranges)


def accuracy_of(run: Run, network: nn.Module) -> float:
    """Score on the held-out split, in torch."""
    return run.adapter.evaluate(run.predict(network), run.splits).value

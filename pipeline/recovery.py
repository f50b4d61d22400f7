"""What brings accuracy back once weights are gone: output matching, and gradual pruning when epochs are allowed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from calibration.batch_norm import reestimate_batch_norm
from pipeline.checkpoints import save_network
from pipeline.compression.database import Database
from pipeline.compression.stitch import Stitcher
from pipeline.context import Run
from pipeline.families.int8 import round_network, round_weights
from pipeline.families.registry import int8_layers, layer_levels
from pipeline.gradual_training import train, train_launched
from pipeline.run_folder import digest, read_json, write_json
from pipeline.tracking.events import tell
from pipeline.tracking.facts import correction_facts
from pipeline.training.correction import CorrectionSettings, PassRecord, match_outputs
from pipeline.training.gradual import GradualSettings
from pipeline.training.layerwise import correct_layers
from pipeline.training.masks import nonzero_masks
from targets.levels import Level

TRAINING = "training.json"


def recover(run: Run, plan: Mapping[str, Level]) -> None:
    """Correct the stitched plan → corrected.safetensors; prune gradually if asked; the better → checkpoint.safetensors.

    A short training may end below the corrected network, which was matched to the dense one's outputs.
    """

    def show(done: PassRecord) -> None:
        tell(run.tracker, correction_facts(done.number + 1, done.loss, done.block_error))

    network, record = corrected_network(run, plan, show)
    save_network(run, network, "corrected.safetensors")
    write_json(run.folder.file("correction.json"), {"schema": 1, **record})
    if run.config.epochs:
        trained, training = trained_network(run, plan, network)
        ships = training["accuracy"] >= record["accuracy"]
        write_json(run.folder.file(TRAINING), {"schema": 1, **training, "ships": ships})
        if ships:
            network = trained
        else:
            network = run.network(run.folder.file("corrected.safetensors"))
            run.reporter.warn("the corrected network is better and ships: more --epochs may help")
    save_network(run, network, "checkpoint.safetensors")


def shipped_accuracy(run: Run) -> float:
    """Score of what `recover` left as the checkpoint, on the held-out split in torch."""
    training = read_json(run.folder.file(TRAINING)) if run.config.epochs else {"ships": False}
    record = training if training["ships"] else read_json(run.folder.file("correction.json"))
    return float(record["accuracy"])


def corrected_network(
    run: Run, plan: Mapping[str, Level], on_pass: Callable[[PassRecord], None] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """The stitched network with batch norm re-estimated and outputs matched to the dense one's, and what that did."""
    network = run.copy_of_dense()
    Stitcher(network, Database(run.folder.file("database")), units=run.units, ranges=run.ranges).apply(plan)
    recipe = run.adapter.recipe
    batches = run.calibration_samples.batches(recipe.training_batch)
    if run.config.layer_correction != "none":
        _correct_layers(run, network, list(compressed_layers(run, plan)), batches)
    reestimate_batch_norm(network, batches)
    record: dict[str, Any] = {
        "layers": run.config.layer_correction,
        "batch_norm": "re-estimated on the calibration set",
        "history": [],
    }
    passes = run.config.correction_passes
    if passes:
        record |= _matched(run, network, plan, passes, on_pass)
    record["accuracy"] = accuracy_of(run, in_int8(run, network, plan))
    kept = "corrected" if passes else "stitched, batch norm re-estimated"
    run.reporter.say(f"{kept}: {run.adapter.metric} {record['accuracy']:.2%}")
    return network, record


def _matched(
    run: Run,
    network: nn.Module,
    plan: Mapping[str, Level],
    passes: int,
    on_pass: Callable[[PassRecord], None] | None,
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
    with run.reporter.task("correcting layers", len(layers)) as task:
        weights = run.config.layer_correction == "sequential"
        correct_layers(
            network, run.dense, layers, batches, weights, progress=lambda done, name: task.update(done, name)
        )


def trained_network(run: Run, plan: Mapping[str, Level], network: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """Gradual pruning towards the plan, from the dense network or, keeping its zeros, from the corrected one.

    Returns:
        The network, which is the corrected one changed in place or another, and a record with its ``accuracy``.
    """
    recipe = run.adapter.recipe
    settings = GradualSettings(
        epochs=run.config.epochs,
        batch_size=min(recipe.training_batch, len(run.splits.train)),
        optimizer=recipe.optimizer,
        peak_lr=recipe.peak_lr,
        weight_decay=recipe.weight_decay,
        block_weight=recipe.training_block_weight,
        start="dense" if run.only_unstructured else "database",
        seed=run.config.seed,
    )
    sparsities = compressed_layers(run, plan)
    checkpoint = run.folder.file(f"training-{digest(sparsities, asdict(settings))[:12]}.pt")
    for other in run.folder.path.glob("training-*.pt"):
        if other != checkpoint:  # of a plan that a certificate showed to be too slow
            other.unlink()
    if run.config.launcher and run.ranges is None:  # layers in int8 learn with the ranges of this process
        student, record = train_launched(run, run.config.launcher, settings, sparsities, checkpoint)
    else:
        student = network if settings.start == "database" else run.copy_of_dense()
        record = asdict(train(run, student, settings, sparsities, checkpoint))
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

"""Every plan is trained from a checkpoint of its own, and what training made worse does not ship."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import pipeline.training.gradual_training
import pipeline.training.recovery
from pipeline.context import Run
from pipeline.models.checkpoints import write_weights
from pipeline.planning.gains import require_levels
from pipeline.run_folder import write_json
from pipeline.training.gradual import TrainingRecord
from pipeline.training.recovery import CORRECTED, CORRECTION, finish_network, shipped_accuracy, trained_network
from targets.errors import SpeedupError
from targets.levels import Level
from tests.opened_runs import opened_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return opened_run(tmp_path / "run", epochs=1)


def test_another_plan_does_not_go_on_with_the_last_ones_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = next(unit for unit in run.units if unit.cuts)
    found: list[tuple[Path, bool]] = []

    def train(*arguments: Any) -> TrainingRecord:
        settings, checkpoint = arguments[6:8]
        found.append((checkpoint, checkpoint.exists()))
        checkpoint.write_bytes(b"")
        return TrainingRecord(settings, 1, 0, 0.0, ())

    monkeypatch.setattr(pipeline.training.gradual_training, "gradual_prune", train)
    monkeypatch.setattr(pipeline.training.recovery, "accuracy_of", lambda *_: 0.9)
    for amount in (0.5, 0.5, 0.75):
        trained_network(run, {block.name: Level("channel", amount)}, run.copy_of_dense())
    (first, _), (again, resumed), (other, stale) = found
    assert again == first
    assert resumed
    assert other != first
    assert not stale
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == [other.name]


@pytest.mark.parametrize(("spoilt", "ships"), [("corrected", True), (None, True), ("trained", False)])
def test_what_is_better_on_the_training_split_ships(
    run: Run, monkeypatch: pytest.MonkeyPatch, spoilt: str | None, ships: bool
) -> None:
    corrected = run.copy_of_dense()
    name = next(iter(corrected.state_dict()))
    networks = {"corrected": corrected, "trained": copy.deepcopy(corrected)}
    if spoilt:
        with torch.no_grad():
            networks[spoilt].state_dict()[name].fill_(7.0)
    accuracies = {"corrected": 0.9, "trained": 0.9 - 0.1 * ships}  # on held-out data, which decides nothing
    write_weights(corrected.state_dict(), run.folder.file(CORRECTED))
    write_json(run.folder.file(CORRECTION), {"accuracy": accuracies["corrected"]})
    training = networks["trained"], {"accuracy": accuracies["trained"]}
    monkeypatch.setattr(pipeline.training.recovery, "trained_network", lambda *_: training)
    finish_network(run, {})
    taken = "trained" if ships else "corrected"
    shipped = run.network(run.folder.file("checkpoint.safetensors")).state_dict()[name]
    assert torch.equal(shipped, networks[taken].state_dict()[name])
    assert shipped_accuracy(run) == accuracies[taken]


def test_other_layers_in_int8_are_another_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    block = next(unit for unit in run.units if unit.cuts)
    names = []

    def train(*arguments: Any) -> TrainingRecord:
        names.append(arguments[7].name)
        return TrainingRecord(arguments[6], 1, 0, 0.0, ())

    monkeypatch.setattr(pipeline.training.gradual_training, "gradual_prune", train)
    monkeypatch.setattr(pipeline.training.recovery, "accuracy_of", lambda *_: 0.9)
    monkeypatch.setattr(pipeline.training.recovery, "int8_layers", lambda *_: ["layer1.0.conv1"] * (len(names) % 2))
    for _ in range(3):
        trained_network(run, {block.name: Level("channel", 0.5)}, run.copy_of_dense())
    assert names[0] == names[2] != names[1]


def test_a_network_without_a_width_is_told_what_to_do(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    require_levels(run)
    monkeypatch.setattr(run, "units", [unit for unit in run.units if not unit.cuts])
    with pytest.raises(SpeedupError, match=r"no part of .* is known to shrink\. Give its adapter widths\(\)"):
        require_levels(run)

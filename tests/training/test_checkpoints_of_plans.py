"""Every plan is trained from a checkpoint of its own, and what training made worse does not ship."""

from pathlib import Path
from typing import Any

import pytest
import torch

import pipeline.gradual_training
import pipeline.recovery
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.recovery import recover, shipped_accuracy, trained_network
from pipeline.run_folder import RunFolder
from pipeline.setup import open_folder, prepare
from pipeline.training.gradual import TrainingRecord
from targets.levels import Level


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = RunConfig(speedup=2, runtime="onnxruntime", families="channel", epochs=1)
    run = prepare(config, RunFolder(tmp_path / "run"), Reporter(quiet=True))
    open_folder(run)
    run.runtime = run.candidates[0]
    return run


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

    monkeypatch.setattr(pipeline.gradual_training, "gradual_prune", train)
    monkeypatch.setattr(pipeline.recovery, "accuracy_of", lambda *_: 0.9)
    for amount in (0.5, 0.5, 0.75):
        trained_network(run, {block.name: Level("channel", amount)}, run.copy_of_dense())
    (first, _), (again, resumed), (other, stale) = found
    assert again == first
    assert resumed
    assert other != first
    assert not stale
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == [other.name]


@pytest.mark.parametrize(("accuracy", "ships"), [(0.95, True), (0.9, True), (0.85, False)])
def test_the_better_of_the_corrected_and_the_trained_network_ships(
    run: Run, monkeypatch: pytest.MonkeyPatch, accuracy: float, ships: bool
) -> None:
    corrected = run.copy_of_dense()
    name = next(iter(corrected.state_dict()))

    def train(_: Run, __: object, network: torch.nn.Module) -> tuple[torch.nn.Module, dict[str, Any]]:
        with torch.no_grad():  # as training towards channels does, in place
            network.state_dict()[name].fill_(7.0)
        return network, {"accuracy": accuracy}

    monkeypatch.setattr(pipeline.recovery, "corrected_network", lambda *_: (corrected, {"accuracy": 0.9}))
    monkeypatch.setattr(pipeline.recovery, "trained_network", train)
    recover(run, {})
    shipped = run.network(run.folder.file("checkpoint.safetensors")).state_dict()[name]
    assert bool((shipped == 7.0).all()) == ships
    assert shipped_accuracy(run) == max(accuracy, 0.9)

"""Every plan is trained from a checkpoint of its own: a certificate that falls short asks for another plan."""

from pathlib import Path
from typing import Any

import pytest

import pipeline.recovery
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.recovery import trained_network
from pipeline.run_folder import RunFolder
from pipeline.setup import open_folder, prepare
from pipeline.training.gradual import TrainingRecord
from targets.levels import Level


def test_another_plan_does_not_go_on_with_the_last_ones_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(speedup=2, runtime="onnxruntime", families="channel", epochs=1)
    run = prepare(config, RunFolder(tmp_path / "run"), Reporter(quiet=True))
    open_folder(run)
    run.runtime = run.candidates[0]
    block = next(unit for unit in run.units if unit.cuts)
    found: list[tuple[Path, bool]] = []

    def train(*arguments: Any) -> TrainingRecord:
        settings, checkpoint = arguments[6:8]
        found.append((checkpoint, checkpoint.exists()))
        checkpoint.write_bytes(b"")
        return TrainingRecord(settings, 1, 0, 0.0, ())

    monkeypatch.setattr(pipeline.recovery, "gradual_prune", train)
    monkeypatch.setattr(pipeline.recovery, "accuracy_of", lambda *_: 0.9)
    for amount in (0.5, 0.5, 0.75):
        trained_network(run, {block.name: Level("channel", amount)}, run.copy_of_dense())
    (first, _), (again, resumed), (other, stale) = found
    assert again == first
    assert resumed
    assert other != first
    assert not stale
    assert [path.name for path in (tmp_path / "run").glob("*.pt")] == [other.name]

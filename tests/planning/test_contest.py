"""`--allocator best` takes the corrected plan that is nearest to the dense network, and corrects nothing twice."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline.planning.contest
import pipeline.training.corrections
from calibration.errors import DataError
from pipeline.context import Run
from pipeline.planning.closed_loop import LoopResult
from pipeline.planning.contest import hold_contest, mean_loss
from pipeline.run_folder import read_json
from pipeline.training.corrections import Corrections
from targets.errors import ArtifactError, RuntimeMissingError, SpeedupError
from tests.opened_runs import opened_run

NOISE = {"spdy": 0.05, "uniform": 0.01, "global-magnitude": 0.2}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return opened_run(tmp_path / "run", calibration_samples=256)


def found(choice: int) -> LoopResult:
    table: Any = None
    return LoopResult((choice,), None, 2.0, 2.0 + choice / 100, table, ())


@pytest.fixture
def corrected(run: Run, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which plans were corrected; what comes out is the dense network with more or less noise."""
    done: list[int] = []
    noise = list(NOISE.values())

    def corrected_network(run: Run, plan: int, *_: object) -> tuple[torch.nn.Module, dict[str, Any]]:
        done.append(plan)
        network, generator = run.copy_of_dense(), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in network.parameters():
                weight += noise[plan] * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
        return network, {"accuracy": 0.9, "history": []}

    monkeypatch.setattr(pipeline.training.corrections, "corrected_network", corrected_network)
    monkeypatch.setattr(type(run), "plan_of", lambda _, choice: choice[0])
    monkeypatch.setattr(pipeline.planning.contest, "in_int8", lambda _, network, __: network)
    return done


@pytest.fixture
def solved(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(NOISE)
    monkeypatch.setattr(pipeline.planning.contest, "judging_samples", lambda _: 128)
    monkeypatch.setattr(
        pipeline.planning.contest, "solve_plainly", lambda _, allocator, *__: found(names.index(allocator))
    )
    monkeypatch.setattr(type(run), "only_unstructured", True)


@pytest.mark.usefixtures("solved")
def test_the_nearest_once_corrected_is_first(run: Run, corrected: list[int]) -> None:
    said: list[str] = []
    entries = hold_contest(run, found(0), 2.0, said.append)
    assert [entry.allocator for entry in entries] == ["uniform", "spdy", "global-magnitude"]
    assert entries[0].found.choice == (1,)
    assert [entry.loss for entry in entries] == sorted(entry.loss for entry in entries)
    assert len(said) == 3
    assert sorted(corrected) == [0, 1, 2]
    hold_contest(run, found(0), 2.0, said.append)
    assert len(corrected) == 3


@pytest.mark.usefixtures("solved", "corrected")
@pytest.mark.parametrize("error", [RuntimeMissingError, ArtifactError, DataError])
def test_a_rival_that_fails_is_told_and_the_searchs_plan_stands(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    said: list[str] = []

    def fail(*_: object) -> LoopResult:
        raise error("failed on the solved plan")

    monkeypatch.setattr(pipeline.planning.contest, "solve_plainly", fail)
    assert [entry.allocator for entry in hold_contest(run, found(0), 2.0, said.append)] == ["spdy"]
    assert "uniform: failed on the solved plan" in said


@pytest.mark.usefixtures("solved", "corrected")
def test_a_rival_that_is_slower_than_what_was_asked_for_never_wins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = replace(found(1), measured_speedup=1.9)
    monkeypatch.setattr(pipeline.planning.contest, "solve_plainly", lambda *_: slow)
    first, *others = hold_contest(run, found(0), 2.0, lambda _: None)
    assert first.allocator == "spdy"
    assert all(entry.loss < first.loss for entry in others)


@pytest.mark.usefixtures("solved", "corrected")
def test_a_plain_plan_that_is_not_as_fast_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> LoopResult:
        raise SpeedupError("too fast")

    monkeypatch.setattr(pipeline.planning.contest, "solve_plainly", unreachable)
    assert [entry.allocator for entry in hold_contest(run, found(0), 2.0, lambda _: None)] == ["spdy"]


def test_the_taken_correction_is_the_runs_and_the_other_networks_go(run: Run, corrected: list[int]) -> None:
    corrections = Corrections(run)
    for choice in (0, 1):
        corrections.network((choice,))
        assert corrections.record((choice,))["accuracy"] == 0.9
    corrections.take((1,))
    shipped = run.network(run.folder.file("corrected.safetensors")).state_dict()
    taken = corrections.network((1,)).state_dict()
    assert all(torch.equal(tensor, taken[name]) for name, tensor in shipped.items())
    assert read_json(run.folder.file("correction.json"))["accuracy"] == 0.9
    assert len(list(run.folder.file("corrected").glob("*.safetensors"))) == 1
    assert corrected == [0, 1]
    assert corrections.record((0,))["accuracy"] == 0.9
    assert corrected == [0, 1]
    run.database_key = "another database"
    assert Corrections(run).key((1,)) != corrections.key((1,))


def test_losses_are_of_samples_that_nothing_learned_from(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.planning.contest, "judging_samples", lambda _: 128)
    assert mean_loss(run, run.copy_of_dense()) == 0
    samples = run.judging_samples(256)
    assert len(samples) == 256
    drawn = samples[:].reshape(256, -1)
    known = run.calibration_samples[:].reshape(len(run.calibration_samples), -1)
    assert not {row.tobytes() for row in known} & {row.tobytes() for row in drawn}
    assert len(run.judging_samples(10**6)) == len(run.splits.train) - 256
    assert np.isfinite(drawn).all()

"""What a speedup is over where the best dense network is the baseline."""

from pathlib import Path

import pytest

import pipeline.certification.baseline
import pipeline.execution
from pipeline.certification.baseline import DenseTime, set_goal
from pipeline.execution import execute
from pipeline.run_folder import read_json
from targets.errors import RuntimeMissingError, SpeedupError
from tests.opened_runs import opened_run

TIMES = [DenseTime("openvino", "fp32", 0.002), DenseTime("onnxruntime", "fp32", 0.003)]


def times(found: list[DenseTime], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.certification.baseline, "time_dense_everywhere", lambda _: found)


def test_a_rival_that_is_faster_raises_the_goal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened_run(tmp_path / "run", baseline="best-dense")
    times(TIMES, monkeypatch)
    set_goal(run)
    assert run.goal == pytest.approx(2 * 0.003 / 0.002)
    assert read_json(run.folder.file("baseline.json"))["best_dense"]["runtime"] == "openvino"
    times([], monkeypatch)
    set_goal(run)  # known by now
    assert run.goal == pytest.approx(3.0)


def test_over_dense_on_the_same_runtime_the_goal_is_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = opened_run(tmp_path / "run")
    times([], monkeypatch)
    set_goal(run)
    assert run.goal == 2.0


def test_a_dense_network_that_does_not_run_here_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened_run(tmp_path / "run", baseline="best-dense")
    times(TIMES[:1], monkeypatch)
    with pytest.raises(RuntimeMissingError, match="does not run on onnxruntime"):
        set_goal(run)


def test_what_is_reachable_is_said_in_the_users_own_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened_run(tmp_path / "run", baseline="best-dense")
    times(TIMES, monkeypatch)

    def unreachable(run: object) -> None:
        raise SpeedupError("3x is unreachable here: at most 2.4x.")

    monkeypatch.setattr(pipeline.execution, "STAGES", {"profile": lambda run: (set_goal(run), unreachable(run))})
    monkeypatch.setattr(pipeline.execution, "write_reports", lambda *_: None)
    with pytest.raises(SpeedupError, match=r"1\.50 times as fast: divide them by that for --speedup"):
        execute(run, "report")

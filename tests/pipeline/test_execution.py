"""What a run does with a certificate that fell short, and what it leaves alone."""

from pathlib import Path
from typing import Any

import pytest

import pipeline.execution
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.execution import execute
from pipeline.run_folder import RunFolder, write_json
from pipeline.setup import prepare
from targets.errors import SpeedupError

MISSED = {"status": "missed", "noise_floor": 0.01, "is_disturbed": False, "ci_low": 1.97}
CERTIFIED = MISSED | {"status": "certified", "ci_low": 2.01}


class Stages:
    """Stages that only say that they ran; certificates come from a list."""

    def __init__(self, run: Run, certificates: list[dict[str, Any]], fastest: float = 9.0) -> None:
        self.run, self.certificates, self.fastest = run, certificates, fastest
        self.done: list[str] = []
        self.aims: list[float] = []

    def table(self) -> dict[str, Any]:
        return {name: lambda _, name=name: self.do(name) for name in ("search", "prune", "export", "certify", "report")}

    def do(self, name: str) -> bool | None:
        if name == "search":
            self.aims.append(self.run.aims.current)
            if self.run.aims.current > self.fastest:
                raise SpeedupError("unreachable")
        self.done.append(name)
        if name == "certify":
            is_new = bool(self.certificates)
            if is_new:
                write_json(self.run.folder.file("certificate.json"), self.certificates.pop(0))
            return is_new
        return None


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    made = prepare(RunConfig(speedup=2, runtime="onnxruntime"), RunFolder(tmp_path / "run"), Reporter(quiet=True))
    made.runtime = made.candidates[0]
    made.__dict__ |= {"model_key": "a network", "units_key": "its units"}  # computing them loads one
    monkeypatch.setattr(made, "check_inputs", lambda: None)
    monkeypatch.setattr(pipeline.execution, "outcome", lambda *_: {"status": "missed", "exit_code": 3})
    monkeypatch.setattr(pipeline.execution, "follow_stage", lambda _, __, name, work: work())
    return made


def stages(run: Run, monkeypatch: pytest.MonkeyPatch, *certificates: dict[str, Any], fastest: float = 9.0) -> Stages:
    made = Stages(run, list(certificates), fastest)
    monkeypatch.setattr(pipeline.execution, "STAGES", made.table())
    return made


def test_a_missed_certificate_sends_the_run_back_a_little_higher(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stages(run, monkeypatch, MISSED, CERTIFIED)
    execute(run, "report")
    assert made.done == ["search", "prune", "export", "certify"] * 2 + ["report"]
    assert made.aims == [2.0, pytest.approx(2.0 * 2.0 / 1.97)]


def test_a_machine_that_misses_again_and_again_is_not_asked_for_ever(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stages(run, monkeypatch, MISSED, MISSED, MISSED, MISSED)
    execute(run, "report")
    assert made.done.count("certify") == 3


def test_a_finished_run_that_missed_is_left_as_it_is(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stages(run, monkeypatch, MISSED, MISSED, MISSED)
    execute(run, "report")
    aim, again = run.aims.current, stages(run, monkeypatch)
    execute(run, "report")
    assert again.done == ["search", "prune", "export", "certify", "report"]
    assert run.aims.current == aim


def test_where_nothing_is_faster_the_missed_certificate_stands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stages(run, monkeypatch, MISSED, fastest=2.0)
    execute(run, "report")
    assert made.aims == [2.0, pytest.approx(2.0 * 2.0 / 1.97), 2.0]
    assert made.done == ["search", "prune", "export", "certify"] * 2 + ["report"]
    assert run.aims.current == 2.0


def test_a_run_that_was_killed_while_it_aimed_too_high_goes_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.folder.path.mkdir()
    run.aims.raise_to(2.04)
    made = stages(run, monkeypatch, CERTIFIED, fastest=2.0)
    execute(run, "report")
    assert made.done == ["search", "prune", "export", "certify", "report"]
    assert run.aims.current == 2.0


def test_what_was_aimed_at_twice_is_lowered_step_by_step_to_the_goal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.folder.path.mkdir()
    run.aims.raise_to(2.04)
    run.aims.raise_to(2.08)
    made = stages(run, monkeypatch, CERTIFIED, fastest=2.0)
    execute(run, "report")
    assert made.aims == [2.08, 2.04, 2.0]


@pytest.mark.parametrize("changed", ["host_key", "model_key", "units_key"])
def test_another_host_or_network_aims_at_the_goal(run: Run, changed: str) -> None:
    run.folder.path.mkdir()
    run.aims.raise_to(2.04)
    assert run.aims.current == 2.04
    run.__dict__[changed] = "another"
    assert run.aims.current == 2.0
    assert not run.aims.lower()


def test_a_request_that_was_never_within_reach_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    stages(run, monkeypatch, fastest=1.5)
    monkeypatch.setattr(pipeline.execution, "write_reports", lambda *_: None)
    with pytest.raises(SpeedupError, match="unreachable"):
        execute(run, "report")


def test_a_machine_noisier_than_the_gain_is_no_reason_to_search_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = stages(run, monkeypatch, MISSED | {"noise_floor": 1.5})
    execute(run, "report")
    assert made.done.count("search") == 1


def test_a_disturbed_machine_is_reason_for_one_more_search(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    disturbed = MISSED | {"is_disturbed": True, "disturbed_fraction": 0.9}
    made = stages(run, monkeypatch, disturbed, disturbed, CERTIFIED)
    execute(run, "report")
    assert made.done.count("search") == 2

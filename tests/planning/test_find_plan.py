"""A plan that is searched again for a higher aim keeps what the first search was."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import pipeline.planning.find_plan
from pipeline.context import Run
from pipeline.planning.closed_loop import LoopResult
from pipeline.planning.find_plan import find_plan
from pipeline.run_folder import read_json
from pipeline.search.spdy import TraceRow
from tests.opened_runs import opened_run


class Searched:
    """Allocators as far as their record goes: the plain ones evaluate nothing."""

    def __init__(self, run: Run, _: object, allocator: str, *rest: Any) -> None:
        self.errors = np.zeros((len(run.units), len(run.levels)))
        self.trace = [TraceRow(n, 0.2, 0.2, "random", 0) for n in (1, 2)] if allocator == "spdy" else []
        self.coefficients, self._effort = None, {"plans_a_second": 7.0 if self.trace else 0.0}

    def effort(self) -> dict[str, float]:
        return self._effort


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run = opened_run(tmp_path / "run", allocator="best")
    table = SimpleNamespace(seconds=np.zeros((len(run.units), len(run.levels))), save=lambda _: None)
    found = LoopResult((0,) * len(run.units), 0.2, 2.0, 2.0, table, ())  # type: ignore[arg-type]
    entries = [
        SimpleNamespace(allocator=name, found=found, to_json=lambda name=name: {"allocator": name})
        for name in ("uniform", "spdy")
    ]
    for name, value in {
        "Searcher": Searched,
        "Database": lambda _: None,
        "LatencyTable": SimpleNamespace(load=lambda _: table),
        "solve_in_loop": lambda *_: found,
        "hold_contest": lambda *_: entries,
    }.items():
        monkeypatch.setattr(pipeline.planning.find_plan, name, value)
    return run


def test_contest_and_trace_stay_when_the_winner_goes_on_for_a_higher_aim(run: Run) -> None:
    find_plan(run, run.goal)
    first = read_json(run.folder.file("plan.json"))
    assert (first["allocator"], first["search"]["evaluations"]) == ("uniform", 2)
    find_plan(run, run.goal * 1.02)
    second = read_json(run.folder.file("plan.json"))
    assert second["allocator"] == "uniform"
    assert second["contest"] == first["contest"] == [{"allocator": "uniform"}, {"allocator": "spdy"}]
    assert second["search"]["trace"] == first["search"]["trace"]
    assert second["search"]["effort"] == {"plans_a_second": 7.0}
    assert second["search"]["seconds"] >= first["search"]["seconds"]

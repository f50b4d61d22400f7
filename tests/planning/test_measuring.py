"""What a measurement says, and what it is trusted with."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pipeline.context import Run
from pipeline.planning.measuring import (
    CHECK_PROCESSES,
    FEWEST_CHECKS,
    PlanBench,
    _row,
    forget_measurements,
    ratio,
    trust,
)
from pipeline.run_folder import Log
from profilers.measure import Candidate, Effort, Measurement
from profilers.statistics import Process
from targets.errors import RuntimeMissingError


def _process(rng: np.random.Generator, spread: float) -> Process:
    """Four compilations whose ratio scatters."""
    return [(np.full(8, 0.01 * np.exp(rng.normal(0, spread))), np.full(8, 0.03)) for _ in range(4)]


def test_a_ratio_is_the_geometric_mean_over_processes_and_compilations_of_the_ratio_of_medians() -> None:
    halves = (np.array([1.0, 1.0, 9.0]), np.array([2.0, 2.0, 2.0]))
    eighths = (np.array([1.0]), np.array([8.0]))
    assert ratio([[halves, eighths]]) == pytest.approx(0.25)
    assert ratio([[halves], [eighths, eighths]]) == pytest.approx(0.25)


def test_the_more_compilations_scatter_the_less_a_measurement_is_trusted() -> None:
    rng = np.random.default_rng(0)
    weights = [trust([_process(rng, spread)]) for spread in (0.001, 0.02, 0.2)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.95
    assert weights[2] < 0.2


class Replayed(PlanBench):
    """Solved plans that measure a given speedup, give or take a percent; processes differ by ``spread`` as well."""

    def __init__(self, folder: Path, speedup: float, spread: float = 0.03) -> None:
        self._run: Any = SimpleNamespace(
            patcher=SimpleNamespace(write_masks=lambda *_: None),
            plan_of=lambda _: {},
            folder=SimpleNamespace(path=folder),
            dense_candidate=Candidate("dense", folder),
            bench=SimpleNamespace(nearest=SimpleNamespace(seconds=None), runtime=SimpleNamespace(name="a runtime")),
            reporter=SimpleNamespace(warn=lambda _: None),
        )
        self._log, self._check_processes = Log(folder / "log.jsonl", "key"), CHECK_PROCESSES
        self._failed_before = {name for name in self._log.names() if self._log[name]["error"]}
        self.speedup, self.spread, self.rng, self.processes = speedup, spread, np.random.default_rng(0), 0

    def _measure(self, _: Candidate, candidates: Any, __: Effort, ___: int, ____: Any = None) -> None:
        (name,) = candidates
        self.processes += 1
        speedup = self.speedup * (1 + self.spread * (-1) ** self.processes)
        samples_s = tuple(np.exp(self.rng.normal(0, 0.01, 20)) / speedup)
        self._log.add(name, _row(Measurement(name, samples_s, (1.0,) * 20, (0,) * 20, (None,) * 20, (0.0,) * 20)))


@pytest.mark.parametrize(("speedup", "processes"), [(3.1, CHECK_PROCESSES), (2.6, FEWEST_CHECKS), (4.0, FEWEST_CHECKS)])
def test_a_plan_that_is_none_of_those_wanted_is_not_measured_to_the_end(
    tmp_path: Path, speedup: float, processes: int
) -> None:
    bench = Replayed(tmp_path, speedup)
    found = bench.solved((1,), {}, wanted=(3.05, 3.14))
    assert 1 / found.relative == pytest.approx(speedup, rel=0.03)
    assert bench.processes == processes
    again = bench.solved((1,), {}, wanted=(3.05, 3.14))  # from what was kept
    assert (again.relative, bench.processes) == (found.relative, processes)


def test_a_plan_on_which_processes_agree_is_not_measured_to_the_end(tmp_path: Path) -> None:
    bench = Replayed(tmp_path, 3.1, spread=0.0)
    assert 1 / bench.solved((1,), {}, wanted=(3.05, 3.14)).relative == pytest.approx(3.1, rel=0.01)
    assert bench.processes == FEWEST_CHECKS + 1


class Failing(Replayed):
    """No process can be started."""

    def _measure(self, _: Candidate, candidates: Any, __: Effort, ___: int, ____: Any = None) -> None:
        (name,) = candidates
        self.processes += 1
        self._log.add(name, _row(Measurement(name, (), (), (), (), (), error="no memory")))


def test_what_failed_is_measured_again_by_the_next_run_and_not_by_the_same(tmp_path: Path) -> None:
    bench = Failing(tmp_path, 3.1)
    for _ in range(2):
        with pytest.raises(RuntimeMissingError, match="failed on the solved plan"):
            bench.solved((1,), {})
    assert bench.processes == CHECK_PROCESSES
    later = Replayed(tmp_path, 3.1)
    assert 1 / later.solved((1,), {}).relative == pytest.approx(3.1, rel=0.03)
    assert later.processes == CHECK_PROCESSES


@pytest.mark.parametrize(("stage", "left"), [("profile", []), ("search", ["0:dense", "0:1,2"])])
def test_a_stage_that_is_done_again_measures_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, left: list[str]
) -> None:
    log = Log(tmp_path / "log.jsonl", "key")
    for name in ("0:dense", "0:1,2", "0:solved:1,2-abc", "1:solved:1,2-abc"):
        log.add(name, {})
    monkeypatch.setattr("pipeline.planning.measuring.plan_log", lambda _: Log(tmp_path / "log.jsonl", "key"))
    forget_measurements(cast(Run, None), stage)
    again = Log(tmp_path / "log.jsonl", "key")
    assert again.names() == left
    again.add("0:dense", {"is": "new"})
    assert Log(tmp_path / "log.jsonl", "key")["0:dense"] == {"is": "new"}


def test_where_any_speedup_is_wanted_all_processes_measure(tmp_path: Path) -> None:
    bench = Replayed(tmp_path, 9.0)
    bench.solved((1,), {})
    assert bench.processes == CHECK_PROCESSES

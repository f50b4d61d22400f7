"""What is certified, what is not, and why."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.certificates import simulate
from benchmarks.record_noise import RECORDINGS
from pipeline.certification.baseline import measure_best_dense
from pipeline.certification.certificate import verdict
from pipeline.certification.evidence import (
    FEWEST,
    ProcessSamples,
    Protocol,
    disturbances_of,
    evidence_of,
    measure_speedup,
)
from pipeline.certification.process_log import ProcessLog
from profilers.measure import Bench, Effort, Measurement
from profilers.statistics import Interval
from targets.errors import RuntimeMissingError
from targets.registry import get_runtime
from targets.target import Target
from tests.profilers.test_measure import write_matmul

pytestmark = pytest.mark.timed


@pytest.mark.parametrize(
    ("low", "high", "noise", "status"),
    [
        (3.01, 3.05, 0.01, "certified"),
        (3.0, 3.0, 0.0, "certified"),
        (2.98, 3.04, 0.01, "inconclusive"),
        (2.90, 2.99, 0.01, "missed"),
        (3.2, 3.4, 2.5, "inconclusive"),
    ],
)
def test_the_verdict_follows_the_whole_interval_and_the_noise(
    low: float, high: float, noise: float, status: str
) -> None:
    assert verdict(3.0, Interval((low + high) / 2, low, high, 0.95), noise) == status


def test_a_disturbed_machine_hides_speedups_but_feigns_none() -> None:
    assert verdict(3.0, Interval(2.8, 2.75, 2.85, 0.95), 0.01, is_disturbed=True) == "inconclusive"
    assert verdict(3.0, Interval(3.1, 3.05, 3.15, 0.95), 0.01, is_disturbed=True) == "certified"


def test_a_budget_that_allows_for_few_processes_makes_no_machine_a_disturbed_one() -> None:
    quiet = Measurement("compressed", (1.0,) * 6, (2.0,) * 6, (0,) * 6, (1e-7,) * 6, (0.0,) * 6)
    disturbed = replace(quiet, distance_s=(1e-6,) * 6)
    few = [ProcessSamples(quiet, quiet)] * 2
    assert not evidence_of(few, Protocol()).is_disturbed
    assert evidence_of([ProcessSamples(disturbed, quiet)] * 10 + few, Protocol()).is_disturbed


@pytest.fixture(scope="module")
def bench() -> Bench:
    target = Target(name="test", vendor="any", runtime="onnxruntime", threads=1, batch_size=4)
    return Bench(get_runtime("onnxruntime"), target)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return write_matmul(folder / "dense.onnx", 512, 12), write_matmul(folder / "small.onnx", 512, 2)


def test_a_real_certificate_measures_in_several_processes_and_against_itself(
    bench: Bench, files: tuple[Path, Path]
) -> None:
    protocol = Protocol(processes=2, most_processes=3, half_width=0.5, effort=Effort(2, 15, 5.0))
    evidence = measure_speedup(bench, *files, protocol, seed=0)
    assert 2 <= len(evidence.processes) <= 3
    assert evidence.speedup.value > 1.3
    assert evidence.null.value == pytest.approx(1.0, abs=0.3)
    assert evidence.noise_floor >= abs(evidence.null.value - 1)
    assert evidence.compressed.value < evidence.baseline.value
    for latency in (evidence.compressed, evidence.baseline):
        assert latency.low <= latency.value <= latency.high


def test_processes_that_are_spread_start_over_the_whole_time(bench: Bench, files: tuple[Path, Path]) -> None:
    quick = Effort(1, 5, 0.1, patience_s=0.0)
    protocol = Protocol(processes=3, most_processes=3, null_processes=2, half_width=0.5, effort=quick, spread_s=6.0)
    evidence = measure_speedup(bench, *files, protocol, seed=0)
    assert len(evidence.processes) == 3
    assert evidence.span_s > 6


def test_a_network_that_does_not_run_has_no_certificate(bench: Bench, files: tuple[Path, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no")
    with pytest.raises(RuntimeMissingError, match="compressed"):
        measure_speedup(bench, files[0], broken, Protocol(processes=2, effort=Effort(1, 5, 1.0)), seed=0)


def fails_at(bench: Bench, monkeypatch: pytest.MonkeyPatch, numbers: set[int]) -> None:
    """Have some measuring processes die; the first is number 0."""
    measure, calls = Bench.measure, iter(range(100))

    def measure_or_die(*arguments: Any, **settings: Any) -> list[list[Measurement]]:
        if next(calls) in numbers:
            return [[Measurement("compressed", error="worker ended (-9)")]]
        return measure(*arguments, **settings)

    monkeypatch.setattr(Bench, "measure", measure_or_die)


QUICK = Effort(1, 5, 0.1, patience_s=0.0)


def test_a_process_that_dies_is_told_of_and_costs_no_certificate(
    bench: Bench, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(bench, monkeypatch, {1, 3})
    protocol = Protocol(processes=3, most_processes=3, null_processes=2, effort=QUICK)
    evidence = measure_speedup(bench, *files, protocol, seed=0)
    assert len(evidence.processes) == 3
    assert len(evidence.failures) == 2
    assert "worker ended (-9)" in disturbances_of(evidence, bench)[-1]


def test_processes_that_go_on_dying_end_it(
    bench: Bench, files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_at(bench, monkeypatch, {1, 2, 3})
    with pytest.raises(RuntimeMissingError, match="worker ended"):
        measure_speedup(bench, *files, Protocol(processes=3, most_processes=3, effort=QUICK), seed=0)


def test_an_interrupted_certificate_goes_on_within_the_hour(
    bench: Bench, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "certifying.jsonl"
    log = ProcessLog(path, "key")
    protocol = Protocol(processes=3, most_processes=3, null_processes=2, effort=QUICK)

    def interrupt(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_speedup(bench, *files, protocol, seed=0, on_process=interrupt, keep=log.add)
    again = ProcessLog(path, "key")
    assert len(again.processes) == 2
    going_on: dict[str, Any] = {"earlier": again.processes, "earlier_s": again.elapsed_s, "keep": again.add}
    evidence = measure_speedup(bench, *files, protocol, seed=0, **going_on)
    assert evidence.processes[:2] == again.processes
    assert len(evidence.processes) == 3
    assert evidence.span_s > again.elapsed_s
    with monkeypatch.context() as later:
        later.setattr("pipeline.certification.process_log.FRESH_S", 0.0)
        assert ProcessLog(path, "key").processes == ()
    again.add(evidence.processes[0])
    assert ProcessLog(path, "another network's").processes == ()


def test_the_best_dense_is_the_fastest_of_all_that_run(bench: Bench, files: tuple[Path, Path]) -> None:
    times = measure_best_dense(bench, [get_runtime("onnxruntime"), get_runtime("openvino")], files[0], seed=0)
    assert {time.runtime for time in times} == {"onnxruntime", "openvino"}
    assert times == sorted(times, key=lambda time: time.latency_s)


@pytest.mark.parametrize("condition", ["quiet", "bursts", "precedence"])
def test_with_recorded_noise_equal_networks_are_never_certified_and_faster_ones_are(condition: str) -> None:
    """A few of the simulated certificates of benchmarks/certificates.py, whose results are committed."""
    processes = json.loads((RECORDINGS / f"{condition}.json").read_text())["processes"]
    equal = simulate(processes, 1.0, 1.05, count=8)
    assert equal["certified"] == 0
    assert equal["covered"] >= 7 / 8
    faster = simulate(processes, 1.5, 1.4, count=8)
    assert faster["certified"] == 1


def test_a_neighbour_on_one_of_the_cores_leaves_everything_open_and_certifies_nothing_false() -> None:
    processes = json.loads((RECORDINGS / "neighbour.json").read_text())["processes"]
    assert simulate(processes, 1.0, 1.05, count=4)["certified"] == 0
    faster = simulate(processes, 1.5, 1.4, count=4)
    assert faster["missed"] == 0
    assert faster["covered"] >= 3 / 4


def test_a_time_budget_ends_the_measuring_after_three_processes(bench: Bench, files: tuple[Path, Path]) -> None:
    protocol = Protocol(processes=9, most_processes=9, budget_s=0.0, effort=Effort(1, 5, 0.2, patience_s=0.0))
    assert len(measure_speedup(bench, *files, protocol, seed=0).processes) == FEWEST == 3

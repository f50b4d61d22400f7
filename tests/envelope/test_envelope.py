"""Where a bundle's speedup holds: measured on a real one, and told in words and colours."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from pipeline.certification.evidence import Protocol
from pipeline.envelope.envelope import (
    BUSY,
    Envelope,
    Place,
    _neighbour,
    default_batches,
    kept_places,
    measure_envelope,
)
from pipeline.envelope.envelope_page import envelope_page, maps_of
from pipeline.run_folder import write_json
from profilers.measure import Effort
from profilers.statistics import Interval
from reports import formatting
from reports.html import render_html
from targets.errors import ConfigError
from targets.host import available_cores, pinned_cpus
from tests.command import pipeline
from tests.quick_runs import command
from tests.verifying.bundles import WIDTH, runnable_bundle

pytestmark = pytest.mark.timed

QUICK = Protocol(processes=2, most_processes=2, effort=Effort(1, 5, 0.3, patience_s=0.0, timeout_s=60))


def place(status: str, value: float, threads: int = 1, batch: int = 4) -> Place:
    return Place(threads, batch, False, status, Interval(value, value - 0.1, value + 0.1, 0.95), 0.001, 0.01)


def test_every_place_is_measured_and_what_the_file_forbids_is_said(tmp_path: Path) -> None:
    bundle = runnable_bundle(tmp_path)
    found = measure_envelope(bundle, threads=[1], batches=[2, 4], protocol=QUICK)
    every = [(1, 2, False), (1, 2, True), (1, 4, False), (1, 4, True)]
    assert [(p.threads, p.batch_size, p.neighbour) for p in found.places] == every
    assert all(p.speedup for p in found.places if not p.neighbour)  # the files are for batches of four
    for measured in found.places:
        assert (measured.speedup is None) == (measured.status == "not possible") == (measured.error is not None)
    assert any(measured.speedup and measured.speedup.value > 1.5 for measured in found.places)
    assert found.sample_shape == {"x0": (WIDTH,)}
    json.dumps(found.to_json())
    with pytest.raises(ConfigError, match="cores"):
        measure_envelope(bundle, threads=[999], protocol=QUICK)


def test_what_was_interrupted_goes_on_at_the_next_place(tmp_path: Path) -> None:
    bundle = runnable_bundle(tmp_path)
    log = tmp_path / "places.jsonl"

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def measure(on_place: Callable[[int, int], None]) -> Envelope:
        return measure_envelope(
            bundle, threads=[1], batches=[1, 2, 4], neighbour=False, protocol=QUICK, on_place=on_place, kept=log
        )

    with pytest.raises(KeyboardInterrupt):
        measure(stop)
    first = kept_places(bundle, QUICK, log).values()
    assert len(first) == 2
    found = measure(lambda *_: None)
    values = [place.speedup and place.speedup.value for place in found.places]
    assert values[:2] == [row["speedup"]["value"] for row in first]
    assert len(values) == 3
    assert not log.exists()
    assert len(kept_places(bundle, replace(QUICK, budget_s=2.0), log)) == 0  # another measurement


def test_the_command_shows_every_place_here_and_in_the_report_of_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.envelope.isa_parity.VISITS", 1)
    bundle = runnable_bundle(tmp_path, target={"runtime": "openvino", "threads": 1, "batch_size": 4})
    write_json(tmp_path / "run.json", {"schema": 1})
    threads = ["1", "2"][: available_cores()]
    places = ("--threads", ",".join(threads), "--batch-sizes", 4, "--no-neighbour", "--isa", "avx2", "--budget", 1)
    ended = command(capfd, "envelope", bundle, *places, "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    assert {(p["threads"], p["batch_size"]) for p in answer["places"]} == {(int(count), 4) for count in threads}
    assert [isa["isa"] for isa in answer["isas"]] == [None, "avx2"]
    assert all(isa["agrees"] for isa in answer["isas"])
    assert not list(tmp_path.glob("*.jsonl"))
    measured = [p["speedup"]["value"] for p in answer["places"] if p["speedup"]]
    assert measured
    for page in (tmp_path / "bundle.envelope.html", tmp_path / "report.html"):
        text = page.read_text()
        assert "Batch 4" in text
        assert all(formatting.speedup(value) in text for value in measured)


def test_the_neighbour_takes_one_of_the_processors_that_are_measured() -> None:
    (cpu,) = pinned_cpus(1)
    with _neighbour([cpu]):
        (busy,) = (child for child in psutil.Process().children() if BUSY in child.cmdline())
        assert busy.cpu_affinity() == [cpu]
    assert not busy.is_running()


def test_the_page_names_the_places_that_fall_short() -> None:
    places = (place("certified", 3.2), place("missed", 1.2, batch=1), Place(1, 16, True, "not possible", error="fixed"))
    envelope = Envelope("bundle", 3.0, "onnxruntime", (1, 4), {"input": (3, 8, 8)}, {"model": "CPU"}, places)
    assert envelope.short == places[1:2]
    page = envelope_page(envelope)
    assert page.headline == "3x holds in 1 of 3 places"
    assert [notice.text for notice in page.notices] == ["1 thread, batch 1: 1.20x (1.10\u20131.30), asked for 3x"]
    unsure = envelope_page(replace(envelope, places=(place("inconclusive", 2.95),)))
    assert [(n.title, n.text) for n in unsure.notices] == [
        ("Left open by the noise", "1 thread, batch 4: 2.95x (2.85\u20133.05)")
    ]
    alone, busy = maps_of(envelope)
    assert alone.tones == (("", "bad", "good"),)
    assert busy.rows == (("1", "not possible"),)
    html = render_html(page)
    assert '<td class="number bad">1.20x' in html
    assert '<td class="number good">3.20x' in html


def test_every_input_size_has_a_heat_map_of_its_own() -> None:
    places = (place("certified", 3.2), replace(place("missed", 1.2), input_size=48))
    envelope = Envelope("bundle", 3.0, "onnxruntime", (1, 4), {"input": (3, 8, 8)}, {"model": "CPU"}, places)
    assert [table.caption for table in maps_of(envelope)] == ["Alone", "Alone, input size 48"]
    (notice,) = envelope_page(envelope).notices
    assert notice.text.startswith("1 thread, batch 4, input size 48: 1.20x")


def test_places_by_default() -> None:
    assert default_batches(64) == [1, 4, 16, 64]
    assert default_batches(6) == [1, 4, 6]


def test_a_bundle_with_nothing_to_measure_against(tmp_path: Path) -> None:
    bare = runnable_bundle(tmp_path, without=("dense.onnx",))
    with pytest.raises(ConfigError, match="nothing to measure against"):
        measure_envelope(bare, protocol=replace(QUICK))


def test_the_command_refuses_what_is_no_number(tmp_path: Path) -> None:
    result = pipeline("envelope", tmp_path, "--threads", "1,x", cwd=tmp_path)
    assert result.returncode == 2
    assert "whole numbers" in result.stderr

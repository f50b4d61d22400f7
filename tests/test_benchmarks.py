"""Benchmarks that take hours keep every result, and go on where they were interrupted."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import certificates, record_noise
from pipeline.certification.evidence import Protocol
from tests.quick_runs import QUICK
from tests.verifying.bundles import runnable_bundle

LITTLE = partial(Protocol, processes=2, most_processes=2, null_processes=2, effort=QUICK)


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, and little to measure."""
    for module in (certificates, record_noise):
        monkeypatch.setattr(module, "Protocol", LITTLE)
    return runnable_bundle(tmp_path)


def nothing_more(*arguments: Any, **settings: Any) -> None:
    raise AssertionError("it was measured before")


@pytest.mark.parametrize("row", certificates.read_results()["simulated"], ids=lambda row: row["condition"])
def test_committed_certificates_hold_what_they_promise(row: dict[str, Any]) -> None:
    """Beside a neighbour that it may not run ahead of, a certificate may leave everything open, and nothing else."""
    if row["claim"] > row["true_speedup"]:
        assert row["certified"] <= 0.01
    elif row["condition"] != "neighbour":
        assert row["certified"] >= 0.95
    assert row["missed"] == 0 or row["claim"] > row["true_speedup"]
    assert 0.92 <= row["covered"] <= 0.98  # of 200, where 95% is what it says


def test_real_certificates(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = tmp_path / "certificates.json"
    result.write_text('{"simulated": []}')
    monkeypatch.setattr(certificates, "RESULT", result)
    certificates.real(bundle, 1)
    first = json.loads(result.read_text())
    assert first["simulated"] == []  # the other part stays
    (real,) = first["real"]
    assert [(row["kind"], row["beside"]) for row in real["rows"]] == list(certificates.KINDS)
    equal, compressed = (real["summary"][f"{kind}, alone"] for kind in ("equal", "compressed"))
    assert (equal["true_speedup"], equal["claim"]) == (1.0, 1.05)
    assert compressed["true_speedup"] == pytest.approx(real["rows"][1]["value"])
    assert compressed["true_speedup"] > 1
    assert real["summary"]["compressed, neighbour"]["claim"] == compressed["claim"]
    with monkeypatch.context() as patch:
        patch.setattr(certificates, "measure_speedup", nothing_more)
        certificates.real(bundle, 1)
        with pytest.raises(AssertionError, match="measured before"):
            certificates.real(bundle, 2)
    assert json.loads(result.read_text()) == first


def test_recordings_of_noise(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_noise, "RECORDINGS", tmp_path / "recordings")
    monkeypatch.setattr(record_noise, "PROCESSES", 1)
    record_noise.record(bundle, "bursts")
    path = tmp_path / "recordings" / "bursts.json"
    first = json.loads(path.read_text())
    assert first["condition"] == "bursts"
    assert len(first["processes"]) == 1
    assert set(first["processes"][0]) == set(record_noise.COLUMNS)
    record_noise.record(bundle, "bursts")
    assert json.loads(path.read_text()) == first
    monkeypatch.setattr(record_noise, "PROCESSES", 2)
    record_noise.record(bundle, "bursts")
    assert json.loads(path.read_text())["processes"][:1] == first["processes"]
    assert len(json.loads(path.read_text())["processes"]) == 2


def test_recorded_conditions_take_the_place_of_synthetic_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [0.001 + 0.00001 * (row % 7) for row in range(96)]
    for condition in ("alone", "bursts"):
        columns = {"reference_s": rows, "samples_s": rows[::-1], "compilation": [row // 32 for row in range(96)]}
        path = tmp_path / f"{condition}.json"
        path.write_text(json.dumps({"condition": condition, "processes": [columns] * 3}))
    monkeypatch.setattr(certificates, "RECORDINGS", tmp_path)
    monkeypatch.setattr(certificates, "RESULT", tmp_path / "results" / "certificates.json")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(certificates, "COUNT", 2)
    certificates.simulate_all()
    found = json.loads(certificates.RESULT.read_text())["simulated"]
    assert [row["condition"] for row in found[::2]] == ["alone", "bursts", "synthetic neighbour"]
    monkeypatch.setattr(certificates, "simulate", nothing_more)
    certificates.simulate_all()  # nothing is simulated twice

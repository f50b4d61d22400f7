"""Runs on runtimes without sparse kernels: channels and int8, from the probe to the certificate."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.execution import outcome
from pipeline.exporting.graph import ExportedGraph
from pipeline.run_folder import RunFolder, read_json, write_json
from pipeline.setup import open_folder, prepare
from pipeline.stages import probe_stage
from targets.errors import AccuracyError
from targets.registry import get_runtime
from tests.quick_runs import measure_little, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = (
    *("--target", "auto", "--batch-size", 16, "--levels", 6, "--plans", 12, "--evaluations", 5, "--no-install"),
    *("--calibration-samples", 64, "--correction-passes", 1, "--channel-criterion", "pfp", "--out", "out"),
)


@pytest.fixture(scope="module", autouse=True)
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        measure_little(patch)
        yield patch


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Path:
    """The folder of a run; so few measurements do not decide whether it is certified."""
    folder = tmp_path_factory.mktemp("run")
    patch.chdir(folder)
    assert run("run", "--runtime", "openvino", "--speedup", 1.2, *SETTINGS) in (0, 3, 6)
    return folder / "out"


def test_openvino_gains_and_the_certificate_says_in_which_precisions(finished: Path) -> None:
    certificate = json.loads((finished / "certificate.json").read_text())
    plan = json.loads((finished / "plan.json").read_text())
    precisions = {unit["level"]["precision"] for unit in plan["units"]}
    assert certificate["compressed"]["precision"] == " and ".join(sorted(precisions))
    assert certificate["measured_speedup"] > 0  # by two processes, beside other work
    assert certificate["accuracy"]["compressed"] > 0.9
    assert "production use allowed" in certificate["licence_note"]


def test_widths_are_those_of_the_plan_in_the_file_that_ships(finished: Path) -> None:
    graph = ExportedGraph(onnx.load(finished / "bundle" / "model.onnx"))
    dense = ExportedGraph(onnx.load(finished / "bundle" / "dense.onnx"))
    for unit in json.loads((finished / "plan.json").read_text())["units"]:
        if unit["kind"] == "block":
            writer, reader = f"{unit['name']}.conv1", f"{unit['name']}.conv2"
            width = round(dense.weight(writer).shape[0] * (1 - unit["level"]["amount"]))
            assert graph.weight(writer).shape[0] == graph.weight(reader).shape[1] == width
            quantised = graph.weight(writer).dtype.name == "int8"
            assert quantised == (unit["level"]["precision"] == "int8")


def test_plain_int8_stands_beside_the_plan(finished: Path) -> None:
    rows = {row["allocator"]: row for row in json.loads((finished / "comparison.json").read_text())["rows"]}
    assert rows["plain int8"]["accuracy"] > 0.9
    assert rows["plain int8"]["measured_speedup"] > 0
    assert rows["nncf int8"]["accuracy"] > 0.9
    assert rows["nncf int8"]["measured_speedup"] > 0
    report = (finished / "report.html").read_text()
    assert "plain int8" in report
    assert "nncf int8" in report


def test_with_a_floor_every_runtime_goes_as_fast_as_it_holds_and_the_fastest_is_taken(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as only:
        only.chdir(tmp_path)
        both = [get_runtime(name) for name in ("openvino", "onnxruntime")]
        only.setattr("pipeline.planning.choosing.choose_candidates", lambda *_: both)
        only.setattr("pipeline.planning.choosing.STEPS", 2)
        settings = (*SETTINGS, "--families", "channel", "--no-compare")
        code = run("prune", "--runtime", "auto", "--speedup", 1.05, "--min-accuracy", 60, *settings)
    assert code == 0
    choice = read_json(tmp_path / "out" / "choice.json")
    offers = {offer["runtime"]: offer for offer in choice["offers"]}
    assert set(offers) == {"openvino", "onnxruntime"}
    taken = offers[choice["taken"]]
    assert taken["holds"]
    assert taken["accuracy"] >= 0.6
    assert taken["latency_s"] == min(offer["latency_s"] for offer in offers.values() if offer["holds"])
    runtimes = tmp_path / "out" / "runtimes"
    for name, offer in offers.items():
        if offer["holds"]:  # by so few measurements either may be taken for slow, and pruned too much
            rows = read_json(runtimes / name / "faster.json")["rows"]
            assert all(row["accuracy"] >= 0.6 and row["speedup"] > 1.05 for row in rows)
        assert offer["folder"].partition("-")[0] == name
        assert (runtimes / offer["folder"] / "checkpoint.safetensors").exists()


def test_the_envelope_has_other_input_sizes_while_the_run_folder_is_there(finished: Path, tmp_path: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in finished.iterdir())
    place = ("--threads", 1, "--batch-sizes", 16, "--no-neighbour", "--budget", 1)
    assert run("envelope", finished / "bundle", "--input-sizes", 24, *place, "--out", tmp_path / "found") == 0
    own, larger = json.loads((tmp_path / "found.json").read_text())["places"]
    assert (own["input_size"], larger["input_size"]) == (None, 24)
    assert larger["latency_s"] > own["latency_s"]  # nine times the pixels
    assert larger["speedup"]["value"] > 0
    assert sorted((path.name, path.stat().st_mtime_ns) for path in finished.iterdir()) == before
    shutil.copytree(finished / "bundle", tmp_path / "elsewhere" / "bundle")
    assert run("envelope", tmp_path / "elsewhere" / "bundle", "--input-sizes", 24, *place) == 2


def test_an_accuracy_that_is_not_held_ends_with_slower_plans(finished: Path) -> None:
    certificate = finished / "certificate.json"
    # A miss would be a miss first; slower plans are those below what was measured.
    write_json(certificate, read_json(certificate) | {"status": "certified", "measured_speedup": 9.0})
    folder = RunFolder(finished)
    config = RunConfig(**read_json(finished / "run.json")["config"]).model_copy(update={"min_accuracy": 99.99})
    run = prepare(config, folder, Reporter(quiet=True))
    open_folder(run)
    probe_stage(run)
    with pytest.raises(AccuracyError, match="would keep") as error:
        outcome(run, "certify")
    assert error.value.exit_code == 4
    assert error.value.facts["accuracy"]["compressed"] < 0.9999
    assert error.value.facts["predicted_slower"] == read_json(finished / "frontier.json")["rows"]
    rows = read_json(finished / "frontier.json")["rows"]
    assert all(1 < row["speedup"] < 9 and 0 <= row["accuracy"] <= 1 for row in rows)

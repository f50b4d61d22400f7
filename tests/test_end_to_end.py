"""The main job as a user has it: `pipeline run` on the embedded model, killed at every stage, altered, repeated."""

import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from calibration.datasets import load_splits
from pipeline import load_bundle
from pipeline.cli import STAGES
from pipeline.compression.unit_file import UnitFile
from pipeline.releases.bundle import check_bundle
from pipeline.run_folder import file_digest, read_json
from targets import environments
from targets.errors import ArtifactError
from tests.command import LITTLE, start
from tests.command import pipeline as command
from tests.tracking.runs import check_everything_arrived_once, run_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deepsparse,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        environments.installed("deepsparse") is None, reason="DeepSparse's environment is not installed"
    ),
]

SPEEDUP = 1.6
"""Within reach whatever so few measurements say."""
QUICK = (
    *("run", "--target", "auto", "--runtime", "deepsparse", "--speedup", SPEEDUP, "--batch-size", 32, "--out", "out"),
    *("--levels", 14, "--plans", 18, "--evaluations", 25, "--calibration-samples", 256, "--correction-passes", 3),
    *("--solver", "blocked", "--allocator", "spdy", "--ship-sample", 100),
)

pipeline = partial(command, program=LITTLE)


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def kill_when(folder: Path, stage: str, seconds: float, signal_number: int) -> int:
    """Start the run, send a signal some seconds after ``stage`` began, and give its exit code."""
    process = start(*QUICK, "--no-compare", cwd=folder, program=LITTLE)
    assert process.stderr is not None
    for line in process.stderr:
        if line.rstrip().endswith(f"s {stage}"):
            time.sleep(seconds)
            break
    os.kill(process.pid, signal_number)
    process.communicate()
    return process.returncode


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mlflow_uri: str) -> tuple[Path, dict[str, Any]]:
    """A run that was killed and interrupted at several stages before it was left to finish, followed on a server."""
    folder = tmp_path_factory.mktemp("run")
    log = folder / "out" / "measurements.jsonl"
    assert kill_when(folder, "profile", 4.0, signal.SIGKILL) == -signal.SIGKILL
    measured = line_count(log)
    for stage, seconds, number in (
        ("database", 0.7, signal.SIGKILL),
        ("search", 3.0, signal.SIGINT),
        ("prune", 1.0, signal.SIGKILL),
        ("certify", 2.0, signal.SIGKILL),
    ):
        assert kill_when(folder, stage, seconds, number) == (130 if number == signal.SIGINT else -number)
        assert line_count(log) >= measured
        measured = line_count(log)
    result = pipeline(*QUICK, "--no-compare", "--json", "--track", f"mlflow:{mlflow_uri}", cwd=folder)
    names = [line.partition('", ')[0] for line in log.read_text().splitlines()[1:]]
    assert 10 < len(names) < 2 * len(set(names))  # some are tried again for undisturbed rounds, after kills none
    assert not list((folder / "out").glob("plans-*"))  # nor is anything left of the kills
    assert result.returncode in (0, 3, 6), result.stderr
    assert (folder / "out" / "bundle").exists(), result.stderr
    return folder / "out", json.loads(result.stdout)


def test_the_certificate_holds_everything_that_it_promises(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = finished
    certificate = json.loads((folder / "bundle" / "certificate.json").read_text())
    promised = {
        *("schema", "status", "requested_speedup", "predicted_speedup", "measured_speedup", "ci_low", "ci_high"),
        *("confidence", "noise_floor", "baseline", "compressed", "best_dense", "speedup_over_best_dense"),
        *("accuracy", "host", "target", "proxy", "licence_note", "versions", "created"),
    }
    assert promised <= certificate.keys()
    assert certificate["requested_speedup"] == SPEEDUP
    assert certificate["ci_low"] <= certificate["measured_speedup"] <= certificate["ci_high"]
    assert certificate["status"] == answer["status"]
    assert {"certified": 0, "missed": 3, "inconclusive": 6}[answer["status"]] == answer["exit_code"]
    ratios = [np.median(p["baseline_s"]) / np.median(p["compressed_s"]) for p in certificate["samples"]["processes"]]
    assert certificate["speedup_all_rounds"]["value"] == pytest.approx(np.exp(np.mean(np.log(ratios))))
    for network in (certificate["baseline"], certificate["compressed"]):
        assert 0 < network["latency_low_s"] <= network["latency_s"] <= network["latency_high_s"]
    assert certificate["compressed"]["sparsity"] > 0.1
    assert certificate["accuracy"]["n"] == 450
    assert certificate["accuracy"]["compressed"] > 0.9
    assert "production" in certificate["licence_note"]


def test_the_bundle_is_whole_and_its_golden_outputs_are_those_of_onnxruntime(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    import onnxruntime

    bundle = finished[0] / "bundle"
    manifest = check_bundle(bundle)
    assert {"model.onnx", "dense.onnx", "openvino/model.xml", "plan.json", "report.html"} <= manifest["files"].keys()
    assert {"sbom.cdx.json", "README.md"} <= manifest["files"].keys()
    origin = manifest["provenance"]
    assert origin["weights"]["compressed_sha256"] == file_digest(finished[0] / "checkpoint.safetensors")
    assert origin["data"]["calibration_sha256"] == read_json(finished[0] / "calibration.json")["sha256"]
    assert origin["configuration"]["settings"]["speedup"] == SPEEDUP
    assert "sample.npz" in manifest["files"]
    verified = pipeline("verify", bundle, "--no-measure", "--json", cwd=finished[0])
    accuracy = json.loads(verified.stdout)["accuracy"]
    assert accuracy["n"] == 100
    assert accuracy["compressed"] > 0.85
    golden = load_file(bundle / "golden.safetensors")
    session = onnxruntime.InferenceSession(bundle / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: golden["input"]})[0]
    np.testing.assert_allclose(outputs, golden["output"], rtol=1e-3, atol=1e-3)


def test_the_bundle_loads_in_one_line_and_says_what_it_said_when_it_was_made(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    bundle = finished[0] / "bundle"
    golden, data = load_file(bundle / "golden.safetensors"), load_splits(None).test
    with load_bundle(bundle) as model:
        assert model.runtime == "deepsparse"
        np.testing.assert_allclose(model(golden["input"]), golden["output"], rtol=1e-5, atol=1e-5)
        scores = model.classify(model(data.inputs(np.arange(len(data)))))
    hits = [row[0].name == data.classes[label] for row, label in zip(scores, data.labels, strict=True)]
    assert np.mean(hits) == pytest.approx(finished[1]["accuracy"]["compressed"], abs=0.005)


def test_the_server_has_the_whole_run_and_its_bundle(
    finished: tuple[Path, dict[str, Any]], mlflow_uri: str, tmp_path: Path
) -> None:
    folder, answer = finished
    client, run = run_of(mlflow_uri, folder)
    check_everything_arrived_once(mlflow_uri, folder, answer["status"], answer["exit_code"])
    assert {f"stage_seconds/{stage}" for stage in STAGES} <= run.data.metrics.keys()
    assert run.data.params["speedup"] == str(SPEEDUP)
    assert run.data.metrics["certificate/measured_speedup"] == pytest.approx(answer["measured_speedup"])
    evaluations = {row[0] for row in read_json(folder / "plan.json")["search"]["trace"]}
    assert evaluations <= {m.step for m in client.get_metric_history(run.info.run_id, "search/incumbent_loss")}
    assert check_bundle(Path(client.download_artifacts(run.info.run_id, "bundle", str(tmp_path))))


def test_a_finished_run_is_signed_once_a_key_is_named(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = finished[0]
    keys = {name: str(folder.parent / name) for name in ("first.key", "second.key")}
    for name, path in keys.items():
        assert pipeline("keygen", name, cwd=folder.parent).returncode == 0
        pipeline("report", folder, cwd=folder.parent, environment={"SPDY_EDGE_SIGNING_KEY": path})
        assert (
            pipeline("verify", folder / "bundle", "--files-only", "--public-key", path + ".pub", cwd=folder).returncode
            == 0
        )
    Path(keys["second.key"]).chmod(0o644)
    result = pipeline("report", folder, cwd=folder, environment={"SPDY_EDGE_SIGNING_KEY": keys["second.key"]})
    assert result.returncode == 2
    assert "chmod 600" in result.stderr


def test_every_layer_has_the_zeros_of_the_plan(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = finished[0]
    zeros = json.loads((folder / "parity.json").read_text())["zeros"]
    for unit in json.loads((folder / "plan.json").read_text())["units"]:
        planned = unit["level"]["amount"] * unit["parameters"]
        assert zeros[unit["name"]] >= planned - 1


def test_the_report_opens_offline_and_is_small(finished: tuple[Path, dict[str, Any]]) -> None:
    html = (finished[0] / "report.html").read_text()
    assert len(html.encode()) < 2_000_000
    assert 'src="http' not in html
    assert f"{SPEEDUP}x" in html


def test_a_finished_run_answers_at_once_and_measures_nothing(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = finished
    log = folder / "measurements.jsonl"
    before = log.read_text(), (folder / "certificate.json").read_text()
    result = pipeline(*QUICK, "--no-compare", "--json", cwd=folder.parent)
    assert json.loads(result.stdout) == answer
    assert (log.read_text(), (folder / "certificate.json").read_text()) == before


def test_an_altered_bundle_is_refused(finished: tuple[Path, dict[str, Any]]) -> None:
    bundle = finished[0] / "bundle"
    model = bundle / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
            check_bundle(bundle)
        assert pipeline("verify", bundle, cwd=bundle).returncode == 5
        result = pipeline("report", finished[0], cwd=bundle)
        assert result.returncode == 5
        assert "model.onnx was changed" in result.stderr
    finally:
        model.write_bytes(whole)
    assert pipeline("verify", bundle, "--no-measure", "--record", bundle.parent / "v.json", cwd=bundle).returncode == 0


def test_the_unreachable_is_refused_with_the_reachable(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = finished[0].parent
    arguments = ["--out" if a == "--out" else ("far" if a == "out" else a) for a in QUICK]
    arguments[arguments.index(SPEEDUP)] = 60
    result = pipeline(*arguments, "--json", cwd=folder)
    assert result.returncode == 3
    answer = json.loads(result.stdout)
    assert "unreachable here: the fastest plan measured gives" in answer["error"]
    assert (folder / "far" / "report.html").exists()
    assert line_count(folder / "far" / "measurements.jsonl") == 0  # a first look was enough


def test_a_stage_alone_on_the_folder(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = finished[0]
    result = pipeline("search", folder, "--config", folder / "run.toml", "--json", cwd=folder)
    assert result.returncode == 0
    assert json.loads(result.stdout)["stage"] == "search"
    result = pipeline("calibrate", folder, "--again", cwd=folder)
    assert result.returncode == 0
    assert "dense network: top-1 accuracy 9" in result.stderr
    assert "on 450 held-out samples" in result.stderr


def test_a_broken_unit_is_made_again(finished: tuple[Path, dict[str, Any]]) -> None:
    folder = finished[0]
    unit = max((folder / "database").glob("*.safetensors"), key=lambda path: path.stat().st_size)
    whole, content = UnitFile(unit).sha256, unit.read_bytes()
    unit.write_bytes(content[:-100] + bytes(100))
    result = pipeline("database", folder, cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "was altered or is incomplete: what is broken is made again" in result.stderr.replace("\n", " ")
    assert UnitFile(unit).sha256 == whole

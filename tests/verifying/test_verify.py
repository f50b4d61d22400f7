"""Verification of bundles that run, on this host: what holds, what does not, and what each of them is called."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.certification.evidence import Protocol
from pipeline.releases.verified import read_verified
from pipeline.scoring.classes import ClassScorer
from pipeline.scoring.similarity import pair_cosines
from pipeline.serving.record import SENTENCE_SIMILARITY, TensorSpec
from pipeline.verifying.sample import read_sample
from pipeline.verifying.verify import Verification, VerifyOptions, place_of_record, verify
from profilers.measure import Effort
from targets.errors import ArtifactError, ConfigError, RuntimeMissingError, UnreachableError
from tests.bundles import contents
from tests.command import pipeline
from tests.verifying.bundles import BATCH, WIDTH, runnable_bundle

pytestmark = pytest.mark.timed

QUICK = VerifyOptions(
    protocol=Protocol(
        processes=3, most_processes=16, half_width=0.5, effort=Effort(1, 6, 0.5, patience_s=0.0, timeout_s=60)
    )
)
UNMEASURED = replace(QUICK, measure=False)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runnable_bundle(tmp_path_factory.mktemp("good"))


@pytest.fixture(autouse=True)
def short_visits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("profilers.deployment.VISITS", 1)


def missed(found: Verification) -> tuple[int, str]:
    """What a claim that does not hold ends with: a machine that is disturbed all the time leaves it open."""
    return (6, "inconclusive") if found.details["speedup"]["is_disturbed"] else (3, "missed")


def statuses(found: Verification) -> dict[str, str]:
    return {check.name: check.status for check in found.checks}


def test_a_bundle_that_holds_is_measured_again_and_left_as_it_is(bundle: Path) -> None:
    before = contents(bundle)
    found = verify(bundle, QUICK)
    assert found.exit_code == 0
    assert {"files", "host", "golden outputs", "speedup"} <= {n for n, s in statuses(found).items() if s == "passed"}
    speedup = found.to_json()["speedup"]
    assert 1.5 <= speedup["ci_low"] <= speedup["measured_speedup"] <= speedup["ci_high"]
    deployment = found.to_json()["deployment"]["compressed"]
    assert 0 < deployment["p50_s"] <= deployment["p90_s"] <= deployment["p99_s"]
    assert deployment["peak_rss_bytes"] > 1 << 24
    assert deployment.get("energy_j", 1) > 0
    assert contents(bundle) == before
    json.dumps(found.to_json())


def test_a_claim_that_does_not_hold_here_is_missed(bundle: Path) -> None:
    found = verify(bundle, replace(QUICK, min_speedup=500.0))
    assert found.details["speedup"]["ci_high"] < 500
    assert (found.exit_code, found.status) == missed(found)


def test_other_outputs_are_another_network_whatever_its_speed(tmp_path: Path) -> None:
    found = verify(runnable_bundle(tmp_path, spoil=True), QUICK)
    assert found.exit_code == 5
    assert statuses(found)["golden outputs"] == "failed"
    assert "speedup" not in statuses(found)


def test_fewer_golden_samples_than_a_batch_are_enough_to_measure(tmp_path: Path) -> None:
    found = verify(runnable_bundle(tmp_path, golden_rows=1), QUICK)
    assert statuses(found)["golden outputs"] == statuses(found)["speedup"] == "passed"


@pytest.mark.parametrize(
    ("precision", "damage", "code"),
    [("fp32", {"moved": 0.05}, 5), ("int8", {"moved": 0.05}, 0), ("int8", {"spoil": True}, 5)],
)
def test_in_int8_a_value_may_fall_into_the_next_step(
    tmp_path: Path, precision: str, damage: dict[str, Any], code: int
) -> None:
    compressed = {"runtime": "onnxruntime", "precision": precision}
    assert verify(runnable_bundle(tmp_path, compressed=compressed, **damage), UNMEASURED).exit_code == code


def test_another_cpu_is_said_and_stops_only_who_asks_for_it(tmp_path: Path) -> None:
    other = runnable_bundle(tmp_path, host={"id": "0" * 16, "model": "Other CPU"})
    found = verify(other, UNMEASURED)
    assert found.exit_code == 0
    (host,) = (check for check in found.checks if check.name == "host")
    assert host.status == "noted"
    assert "another" in host.found
    assert verify(other, replace(UNMEASURED, strict_host=True)).exit_code == 7


def test_what_differs_around_it_is_noted(tmp_path: Path) -> None:
    changed = runnable_bundle(
        tmp_path,
        versions={"onnxruntime": "0.1"},
        created="2999-01-01T00:00:00+00:00",
        target={"runtime": "onnxruntime", "threads": 999, "batch_size": 4},
    )
    found = statuses(verify(changed, UNMEASURED))
    assert {found[name] for name in ("version of onnxruntime", "clock", "threads")} == {"noted"}
    assert found["speedup"] == "skipped"


def test_without_the_dense_network_a_stated_latency_serves(tmp_path: Path) -> None:
    bare = runnable_bundle(tmp_path, without=("dense.onnx", "golden.safetensors"))
    unmeasured = verify(bare, QUICK)
    assert unmeasured.exit_code == 6
    assert "--dense-latency-ms" in next(check.found for check in unmeasured.checks if check.name == "speedup")
    assert statuses(unmeasured)["golden outputs"] == "skipped"
    assert verify(bare, UNMEASURED).exit_code == 0
    assert verify(bare, replace(QUICK, dense_latency_s=10.0)).exit_code == 0
    slower = verify(bare, replace(QUICK, dense_latency_s=1e-9))
    assert (slower.exit_code, slower.status) == missed(slower)


def test_a_stated_latency_is_refused_beside_a_dense_network(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="leave --dense-latency-ms out"):
        verify(runnable_bundle(tmp_path), replace(QUICK, dense_latency_s=1.0))


def test_a_runtime_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("SPDY_EDGE_DEEPSPARSE_PYTHON", raising=False)
    other = runnable_bundle(tmp_path, target={"runtime": "deepsparse", "threads": 1, "batch_size": 4})
    with pytest.raises(RuntimeMissingError, match="not installed"):
        verify(other, UNMEASURED)


@pytest.mark.parametrize("name", ["model.onnx", "dense.onnx", "certificate.json", "golden.safetensors"])
def test_one_byte_is_enough(tmp_path: Path, name: str) -> None:
    broken = runnable_bundle(tmp_path)
    content = bytearray((broken / name).read_bytes())
    content[len(content) // 2] ^= 1
    (broken / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=f"{name} was changed"):
        verify(broken, QUICK)


def test_missing_added_and_of_another_version(tmp_path: Path) -> None:
    broken = runnable_bundle(tmp_path)
    (broken / "extra").touch()
    (broken / "plan.json").unlink()
    with pytest.raises(ArtifactError, match=r"plan.json is missing; extra was added"):
        verify(broken, QUICK)
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "manifest.json").write_text(json.dumps(manifest | {"schema": 9}))
    with pytest.raises(ArtifactError, match="schema 9"):
        verify(broken, QUICK)


def sample(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def outputs_of(network: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    rows = (inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH))
    return np.concatenate([session.run(None, {session.get_inputs()[0].name: batch})[0] for batch in rows])


def test_accuracy_on_a_sample_is_compared_with_the_loss_that_was_certified(bundle: Path, tmp_path: Path) -> None:
    inputs = np.random.default_rng(3).standard_normal((64, WIDTH)).astype(np.float32)
    labels = {name: outputs_of(bundle / f"{name}.onnx", inputs).argmax(axis=1) for name in ("model", "dense")}
    better = sample(tmp_path / "better.npz", inputs=inputs, labels=labels["model"])
    worse = sample(tmp_path / "worse.npz", inputs=inputs, labels=labels["dense"])
    assert verify(bundle, replace(UNMEASURED, sample=better)).exit_code == 0
    found = verify(bundle, replace(UNMEASURED, sample=worse))
    assert (found.exit_code, found.status) == (4, "less accurate")
    with pytest.raises(ConfigError, match="do not fit together"):
        verify(
            bundle, replace(UNMEASURED, sample=sample(tmp_path / "odd.npz", inputs=inputs, labels=labels["dense"][:5]))
        )
    with pytest.raises(ConfigError, match="is no sample"):
        verify(bundle, replace(UNMEASURED, sample=tmp_path / "none.npz"))


def test_a_bundle_that_carries_a_sample_is_scored_on_it(tmp_path: Path) -> None:
    found = verify(runnable_bundle(tmp_path, labelled=8), UNMEASURED)
    (accuracy,) = [check for check in found.checks if check.name == "accuracy"]
    assert accuracy.status == "passed"
    assert accuracy.found.endswith("→ 100.00%)")
    assert "8 samples" in accuracy.found


def test_embeddings_are_scored_by_how_alike_their_inputs_are(tmp_path: Path) -> None:
    """The same for a task whose score is no mean over samples, with and without the dense network."""
    inputs = np.random.default_rng(4).standard_normal((80, WIDTH)).astype(np.float32)
    shipped = runnable_bundle(tmp_path / "all", task=SENTENCE_SIMILARITY)
    alike = {name: pair_cosines(outputs_of(shipped / f"{name}.onnx", inputs)) for name in ("model", "dense")}
    better = sample(tmp_path / "better.npz", inputs=inputs, scores=alike["model"])
    worse = sample(tmp_path / "worse.npz", inputs=inputs, scores=alike["dense"])
    found = {path.stem: verify(shipped, replace(UNMEASURED, sample=path)) for path in (better, worse)}
    assert {name: one.exit_code for name, one in found.items()} == {"better": 0, "worse": 4}
    assert "40 samples (" in next(check.found for check in found["better"].checks if check.name == "accuracy")
    alone = runnable_bundle(tmp_path / "alone", task=SENTENCE_SIMILARITY, without=("dense.onnx",))
    assert verify(alone, replace(UNMEASURED, sample=better)).exit_code == 0
    assert verify(alone, replace(UNMEASURED, sample=worse)).exit_code == 4


def test_samples_hold_every_input(tmp_path: Path) -> None:
    labels, tokens = np.arange(3), np.ones((3, 8), np.int64)
    path = sample(tmp_path / "texts.npz", input_ids=tokens, attention_mask=2 * tokens, labels=labels)
    ids, mask, types = (TensorSpec(n, (1, 8), "int64") for n in ("input_ids", "attention_mask", "token_type_ids"))
    feeds, truth = read_sample(path, [ids, mask], ClassScorer())
    assert {name: int(array[0, 0]) for name, array in feeds.items()} == {"input_ids": 1, "attention_mask": 2}
    assert list(truth["labels"]) == [0, 1, 2]
    with pytest.raises(ConfigError, match=r"npz file with input_ids, token_type_ids \[n, …\], labels \[n\]"):
        read_sample(path, [ids, types], ClassScorer())
    detector = runnable_bundle(tmp_path / "detector", task="depth-estimation")
    with pytest.raises(ConfigError, match=r"How depth-estimation is scored .* Leave the sample out"):
        verify(detector, replace(UNMEASURED, sample=path))


def test_records_never_touch_the_bundle_or_each_other(bundle: Path, tmp_path: Path) -> None:
    first = place_of_record(bundle, None)
    assert first.parent == bundle.parent
    first.touch()
    assert place_of_record(bundle, None) != first
    first.unlink()
    with pytest.raises(ConfigError, match="lies in the bundle"):
        place_of_record(bundle, bundle / "record.json")
    (tmp_path / "old.json").touch()
    with pytest.raises(ConfigError, match="never overwritten"):
        place_of_record(bundle, tmp_path / "old.json")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
def test_a_device_that_cannot_be_reached_is_exit_code_7(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPDY_EDGE_SSH", "ssh -F none -o ConnectTimeout=2")
    with pytest.raises(UnreachableError, match="refused"):
        verify(bundle, replace(QUICK, host="ssh://nobody@127.0.0.1:1"))


def test_the_command_writes_a_signed_record(bundle: Path, tmp_path: Path) -> None:
    assert pipeline("keygen", "device.key", cwd=tmp_path).returncode == 0
    result = pipeline(
        *("verify", bundle, "--no-measure", "--record", "record.json", "--key", "device.key", "--json"), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["status"] == "unaltered, speed not measured"
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["checks"][0]["name"] == "files"
    assert read_verified(tmp_path / "record.json", tmp_path / "device.key.pub").exit_code == 0
    (tmp_path / "record.json").write_text(json.dumps(record | {"exit_code": 3}))
    with pytest.raises(ArtifactError, match="altered after signing"):
        read_verified(tmp_path / "record.json", tmp_path / "device.key.pub")

"""A bundle in the registry is the bundle: it says what the certificate says, and predicts what it predicted."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.publishing.to_mlflow import publish_to_mlflow
from pipeline.releases.bundle import write_bundle
from pipeline.run_folder import write_json
from targets.errors import ConfigError, RuntimeMissingError
from tests.certificates import certificate
from tests.publishing.registries import serve
from tests.targets.test_runtimes import BATCH, make_weights, write_model
from tests.tracking.mlflow_process import free_port

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'spdy-edge[mlflow]'")

SERVING = {
    "schema": 1,
    "model": "tiny:1",
    "task": "image-classification",
    "inputs": [{"name": "x", "shape": [BATCH, 3, 16, 16], "dtype": "float32"}],
    "output": {"name": "y", "shape": [BATCH, 10], "dtype": "float32"},
    "runtime": "onnxruntime",
    "precision": "fp32",
    "threads": 1,
    "batch_size": BATCH,
    "preprocessing": None,
    "classes": list("abcdefghij"),
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_model(folder / "model.onnx", make_weights(), BATCH)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    inputs = np.random.default_rng(0).normal(size=(BATCH, 3, 16, 16)).astype(np.float32)
    outputs = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    save_file({"x": inputs, "y": outputs}, folder / "golden.safetensors")
    write_json(folder / "certificate.json", certificate(compressed={"runtime": "onnxruntime"}))
    write_json(folder / "serving.json", SERVING)
    names = ("model.onnx", "golden.safetensors", "certificate.json", "serving.json")
    write_bundle(folder / "bundle", {name: folder / name for name in names}, {"status": "certified"})
    return folder / "bundle"


def version_of(uri: str, published: str) -> Any:
    from mlflow import MlflowClient

    name, version = published.removeprefix("models:/").split("/")
    return MlflowClient(uri).get_model_version(name, version)


@pytest.mark.slow
def test_a_version_predicts_in_another_process_what_the_bundle_predicted(
    mlflow_uri: str, bundle: Path, tmp_path: Path
) -> None:
    published = publish_to_mlflow(bundle, "digits", mlflow_uri, None)
    golden, outputs = bundle / "golden.safetensors", tmp_path / "outputs.safetensors"
    script = Path(__file__).with_name("mlflow_client_process.py")
    process = subprocess.run(
        [sys.executable, script, mlflow_uri, published, golden, outputs],
        env=os.environ | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    expected, found = load_file(golden)["y"], load_file(outputs)
    np.testing.assert_allclose(found["whole"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["first"], expected[:1], rtol=1e-4, atol=1e-5)
    assert "torch" not in outputs.with_suffix(".modules").read_text().split()


def test_a_version_says_what_the_certificate_says(mlflow_uri: str, bundle: Path) -> None:
    first = publish_to_mlflow(bundle, "two-versions", mlflow_uri, None)
    second = publish_to_mlflow(bundle, "two-versions", mlflow_uri, "the demo must go on")
    assert (first, second) == ("models:/two-versions/1", "models:/two-versions/2")
    tags = version_of(mlflow_uri, first).tags
    assert "forced" not in tags
    expected = {"status": "certified", "measured_speedup": "3.024", "speedup_ci_low": "3.003", "accuracy": "0.8612"}
    assert expected.items() <= tags.items()
    assert version_of(mlflow_uri, second).tags["forced"] == "the demo must go on"


@pytest.mark.parametrize("name", ["", "a/b", "a:b"])
def test_a_name_that_the_registry_refuses_registers_nothing(mlflow_uri: str, bundle: Path, name: str) -> None:
    from mlflow import MlflowClient

    before = len(MlflowClient(mlflow_uri).search_model_versions())
    with pytest.raises(ConfigError, match="refuses"):
        publish_to_mlflow(bundle, name, mlflow_uri, None)
    assert len(MlflowClient(mlflow_uri).search_model_versions()) == before


def test_a_server_that_is_down(bundle: Path) -> None:
    with pytest.raises(RuntimeMissingError, match="does not answer"):
        publish_to_mlflow(bundle, "digits", f"http://127.0.0.1:{free_port()}", None)


def test_credentials_in_the_uri(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_USERNAME") as refused:
        publish_to_mlflow(bundle, "digits", "http://me:hunter2@127.0.0.1:1", None)
    assert "hunter2" not in str(refused.value)


def test_a_server_that_refuses_the_credentials(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    with serve(lambda request: (401, {}, b"no")) as server:
        with pytest.raises(ConfigError, match="refuses the credentials") as refused:
            publish_to_mlflow(bundle, "digits", f"http://{server.host}", None)
        assert server.requests
    assert "hunter2" not in str(refused.value)

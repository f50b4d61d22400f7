"""A bundle as the folder of a model server."""

import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import openvino
import pytest

from pipeline.publishing.to_folder import Layout, publish_to_folder
from pipeline.releases.bundle import check_bundle
from targets.errors import ArtifactError, ConfigError
from tests.serving.bundles import make_bundle
from tests.targets.test_runtimes import make_weights, reference

X = np.random.default_rng(5).standard_normal((8, 3, 16, 16)).astype(np.float32)
PAPERS = {"tiny-1/certificate.json", "tiny-1/serving.json"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("made"))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_openvino_model_server(bundle: Path, tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="certified on onnxruntime .* openvino"):
        path = publish_to_folder(bundle, tmp_path / "models", "openvino-model-server")
    assert files(path) == PAPERS | {"config.json", "tiny-1/1/model.xml", "tiny-1/1/model.bin"}
    (entry,) = json.loads((path / "config.json").read_text())["model_config_list"]
    config = entry["config"]
    assert config["name"] == config["base_path"] == "tiny-1"
    core = openvino.Core()
    network = core.read_model(path / config["base_path"] / "1" / "model.xml")
    compiled = core.compile_model(network, config["target_device"], config["plugin_config"])
    np.testing.assert_allclose(compiled([X])[0], reference(make_weights(), X), atol=1e-4)


def test_triton(bundle: Path, tmp_path: Path) -> None:
    path = publish_to_folder(bundle, tmp_path / "deep" / "models", "triton")
    assert files(path) == PAPERS | {"tiny-1/config.pbtxt", "tiny-1/1/model.onnx"}
    text = (path / "tiny-1" / "config.pbtxt").read_text()
    assert re.search(r'name: "tiny-1"\nbackend: "onnxruntime"\nmax_batch_size: 0\n', text)
    session = onnxruntime.InferenceSession(path / "tiny-1" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    for kind, (tensor,) in {"input": session.get_inputs(), "output": session.get_outputs()}.items():
        dims = ", ".join(map(str, tensor.shape))
        assert f'{kind} [ {{ name: "{tensor.name}" data_type: TYPE_FP32 dims: [ {dims} ] }} ]' in text


def test_plain_is_a_bundle(bundle: Path, tmp_path: Path) -> None:
    path = publish_to_folder(bundle, tmp_path / "copy", "plain")
    assert check_bundle(path) == check_bundle(bundle)


@pytest.mark.parametrize("layout", get_args(Layout))
def test_what_is_there_is_left_alone(bundle: Path, tmp_path: Path, layout: Layout) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(ConfigError, match="already"):
        publish_to_folder(bundle, tmp_path / "models", layout)
    assert files(tmp_path) == set()


def test_nothing_is_left_where_it_fails(tmp_path: Path, bundle: Path) -> None:
    altered = make_bundle(tmp_path)
    (altered / "openvino" / "model.bin").unlink()
    with pytest.raises(ArtifactError, match="missing"):
        publish_to_folder(altered, tmp_path / "models", "openvino-model-server")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="Cannot write"):
        publish_to_folder(bundle, tmp_path / "file" / "models", "triton")
    assert not [path for path in tmp_path.rglob("*models*") if path != tmp_path]

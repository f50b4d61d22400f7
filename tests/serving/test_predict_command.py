"""`pipeline predict`: what it prints and exits with."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.command import pipeline
from tests.serving.bundles import make_bundle
from tests.serving.test_load_bundle import samples
from tests.targets.test_runtimes import make_weights, reference


def test_an_image_as_a_table_and_as_json(bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 30, 3), 200, np.uint8)).save(tmp_path / "grey.png")
    told = pipeline("predict", bundle, "grey.png", "--top", 2, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert told.stderr.count("%") == 2
    answer = json.loads(pipeline("predict", bundle, "grey.png", "--json", cwd=tmp_path).stdout)
    (classes,) = answer["predictions"]
    assert len(classes) == 5
    assert answer["runtime"] == answer["certified_runtime"] == "onnxruntime"
    assert f"{classes[0]['class']} " in told.stderr
    assert f"{classes[0]['probability']:.2%}" in told.stderr


def test_arrays(bundle: Path, tmp_path: Path) -> None:
    x = samples(11)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "one.npz", x)
    np.savez(tmp_path / "two.npz", inputs=x, other=x[:2])
    expected = ["abcdefghij"[i] for i in reference(make_weights(), x).argmax(axis=1)]
    for name in ("x.npy", "one.npz", "two.npz"):
        answer = json.loads(pipeline("predict", bundle, name, "--json", "--top", 1, cwd=tmp_path).stdout)
        assert [sample[0]["class"] for sample in answer["predictions"]] == expected


def test_what_cannot_be_predicted(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "several.npz", a=samples(1), b=samples(1))
    np.savez(tmp_path / "small.npz", samples(1)[..., :4])
    (tmp_path / "broken.npz").write_bytes(b"PK no zip")
    (tmp_path / "text.png").write_text("no image")
    for source, words in {
        "several.npz": "a, b; call one of them inputs",
        "small.npz": "Give float32 [n, 3, 16, 16]",
        "broken.npz": "cannot be read as numpy arrays",
        "absent.npz": "absent.npz",
        "absent.png": "There is no image absent.png",
        "text.png": "not a readable image",
    }.items():
        result = pipeline("predict", bundle, source, "--json", cwd=tmp_path)
        assert result.returncode == 2, result.stderr
        assert words in json.loads(result.stdout)["error"]
        assert "Traceback" not in result.stderr
    assert pipeline("predict", tmp_path, "text.png", cwd=tmp_path).returncode == 5


def test_another_runtime_than_the_certified_one_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPDY_EDGE_DEEPSPARSE_PYTHON", raising=False)
    made = make_bundle(tmp_path, runtime="deepsparse")
    np.save(tmp_path / "x.npy", samples(2))
    home = {"SPDY_EDGE_HOME": str(tmp_path / "empty")}
    result = pipeline("predict", made, "x.npy", "--json", cwd=tmp_path, environment=home)
    assert json.loads(result.stdout)["runtime"] == "openvino"
    assert "certified on deepsparse" in result.stderr

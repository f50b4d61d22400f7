"""A bundle is what was certified, or it says what is not."""

import json
from pathlib import Path

import pytest

from pipeline.releases.bundle import check_bundle, copy_bundle, write_bundle
from targets.errors import ArtifactError, ConfigError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (tmp_path / "c.json").write_text("{}")
    files = {"model.onnx": tmp_path / "model.onnx", "sub/certificate.json": tmp_path / "c.json"}
    write_bundle(tmp_path / "bundle", files, {"status": "certified"})
    return tmp_path / "bundle"


def test_an_unaltered_bundle_passes(bundle: Path) -> None:
    manifest = check_bundle(bundle)
    assert manifest["status"] == "certified"
    assert manifest["files"]["model.onnx"]["bytes"] == 7


def change(path: Path) -> None:
    path.write_bytes(b"weightz")


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("model.onnx", change, "changed"),
        ("model.onnx", Path.unlink, "missing"),
        ("extra.bin", Path.touch, "added"),
        ("sub/certificate.json", Path.unlink, "missing"),
    ],
)
def test_any_altered_file_is_named(bundle: Path, name: str, damage: object, word: str) -> None:
    assert callable(damage)
    damage(bundle / name)
    with pytest.raises(ArtifactError, match=f"{name} (is|was) {word}"):
        check_bundle(bundle)


def test_a_manifest_of_another_version_is_refused(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 7}))
    with pytest.raises(ArtifactError, match="schema 7"):
        check_bundle(bundle)


def test_no_manifest_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        check_bundle(tmp_path)


def test_a_folder_that_is_not_there_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no bundle"):
        check_bundle(tmp_path / "nowhere")


def test_an_earlier_bundle_is_moved_aside_never_deleted(bundle: Path, tmp_path: Path) -> None:
    write_bundle(bundle, {"model.onnx": tmp_path / "c.json"}, {"status": "missed"})
    assert check_bundle(bundle)["status"] == "missed"
    assert check_bundle(tmp_path / "bundle.1")["status"] == "certified"


def test_a_copy_is_made_once_and_follows_its_source(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "taken" / "bundle"
    copy.parent.mkdir()
    copy_bundle(bundle, copy)
    copy_bundle(bundle, copy)
    assert check_bundle(copy) == check_bundle(bundle)
    assert [path.name for path in copy.parent.iterdir()] == ["bundle"]
    write_bundle(bundle, {"model.onnx": tmp_path / "c.json"}, {"status": "missed"})
    copy_bundle(bundle, copy)
    assert check_bundle(copy)["status"] == "missed"
    assert check_bundle(copy.with_name("bundle.1"))["status"] == "certified"

"""Bill of materials and model card: valid in their own forms, and true to the certificate."""

import hashlib
import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import ModelCard

from pipeline.config import RunConfig
from pipeline.provenance.model_card import write_model_card
from pipeline.provenance.record import code_digest, settings_of, weights_digest
from pipeline.provenance.sbom import write_sbom
from tests.bundles import ORIGIN
from tests.certificates import certificate


def embedded(origin: dict[str, Any]) -> dict[str, Any]:
    """The same of a network that was trained on the spot: no file was given."""
    return origin | {"weights": origin["weights"] | {"given": None}}


@pytest.fixture(params=[True, False], ids=["weights given", "embedded"])
def sbom(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    (tmp_path / "model.onnx").write_bytes(b"model")
    origin = ORIGIN if request.param else embedded(ORIGIN)
    write_sbom(tmp_path / "sbom.cdx.json", tmp_path / "model.onnx", certificate(), origin)
    return json.loads((tmp_path / "sbom.cdx.json").read_text())


def test_the_bill_of_materials_is_valid(sbom: Any) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(sbom)) is None


def test_the_model_is_a_component_with_its_hash(sbom: Any) -> None:
    model = sbom["metadata"]["component"]
    assert (model["type"], model["name"]) == ("machine-learning-model", "resnet:20")
    assert model["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(b"model").hexdigest()}]
    properties = {entry["name"]: entry["value"] for entry in model["properties"]}
    assert properties["spdy-edge:measured_speedup"] == "3.024"
    assert properties["spdy-edge:configuration_sha256"] == "5" * 64


def test_the_packages_that_made_it_are_listed_with_versions(sbom: Any) -> None:
    found = {entry["name"]: entry for entry in sbom["components"]}
    for name in ("spdy-edge", "torch", "onnx", "numpy", "sympy"):  # the last is needed by torch alone
        assert found[name]["version"] == metadata.version(name)
    assert found["deepsparse"]["purl"] == "pkg:pypi/deepsparse@1.8.0"  # in an environment of its own
    assert found["python"]["type"] == "platform"
    assert found["cars"]["type"] == "data"
    assert found["cars"]["hashes"][0]["content"] == "4" * 64
    assert "pytest" not in found
    reached = {entry["ref"]: entry.get("dependsOn", []) for entry in sbom["dependencies"]}
    assert reached["model"] == ["data", f"spdy-edge@{metadata.version('spdy-edge')}"]


def card(tmp_path: Path, **changes: Any) -> str:
    write_model_card(tmp_path / "README.md", certificate(**changes), ORIGIN)
    return (tmp_path / "README.md").read_text()


def test_the_model_card_is_read_by_hugging_face(tmp_path: Path) -> None:
    data = ModelCard(card(tmp_path)).data
    assert data.pipeline_tag == "image-classification"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.8612, "cars")


def test_the_model_card_says_speed_accuracy_and_host_with_intervals(tmp_path: Path) -> None:
    text = card(tmp_path)
    for words in (
        "3.02x",
        "3.003x to 3.049x",
        "Intel Xeon Platinum 8488C",
        "86.12%",
        "-2.41 to -1.27",
        "not production",
    ):
        assert words in text
    for section in ("Intended use", "Speed", "Accuracy", "Data", "Limitations", "Licence"):
        assert f"\n## {section}\n" in text
    assert "Proxy" not in text


def test_the_model_card_hides_no_doubt(tmp_path: Path) -> None:
    text = card(tmp_path, status="missed", proxy=True)
    assert "The speedup was missed" in text
    assert "Not certified" in text
    assert "Proxy" in text


def test_settings_name_files_without_their_folders(tmp_path: Path) -> None:
    config = RunConfig(speedup=3, weights=tmp_path / "w.pt", data=tmp_path / "d.zip", target=str(tmp_path / "t.toml"))
    settings = settings_of(config)
    assert str(tmp_path) not in json.dumps(settings)
    assert (settings["weights"], settings["data"], settings["target"]) == ("w.pt", "d.zip", "t.toml")


def test_the_code_has_one_digest() -> None:
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64


def test_weights_have_one_digest_whether_file_or_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_bytes(b"{}")
    assert weights_digest(folder / "model.safetensors") == hashlib.sha256(b"weights").hexdigest()
    before = weights_digest(folder)
    (folder / "config.json").write_bytes(b"{ }")
    assert before != weights_digest(folder)
    assert weights_digest(Path("someone/on-a-hub")) is None

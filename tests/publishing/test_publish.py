"""What may be published, and where it goes."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.provenance.signing import load_private_key, make_key, sign_bundle
from pipeline.publishing.admission import RefusedError, admit
from pipeline.publishing.publish import Options, annotations_of, publish
from targets.errors import ArtifactError, ConfigError
from tests.bundles import make_bundle


def test_a_certified_bundle_is_admitted(bundle: Path) -> None:
    admission = admit(bundle, None, None)
    assert admission.forced is None
    assert admission.facts["measured_speedup"] == "3.024"


@pytest.mark.parametrize(("status", "code"), [("missed", 3), ("inconclusive", 6), ("wonderful", 5)])
def test_an_uncertified_bundle_is_refused_unless_forced(tmp_path: Path, status: str, code: int) -> None:
    bundle = make_bundle(tmp_path, status)
    with pytest.raises(RefusedError, match=f"says {status}") as caught:
        admit(bundle, None, None)
    assert caught.value.exit_code == code
    assert "--force WHY" in str(caught.value)
    forced = admit(bundle, None, "canary").forced
    assert forced
    assert forced.startswith("canary (against: ")
    assert status in forced


def test_an_altered_bundle_is_refused_before_anything_else(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "missed")
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(RefusedError, match=r"model\.onnx was changed") as caught:
        admit(bundle, None, None)
    assert caught.value.exit_code == 5
    forced = admit(bundle, None, "for the post-mortem").forced
    assert forced
    assert "model.onnx was changed" in forced
    assert "says missed" in forced


def test_who_signed_matters_where_a_key_is_named(bundle: Path, tmp_path: Path) -> None:
    public, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    with pytest.raises(RefusedError, match="not signed"):
        admit(bundle, public, None)
    signature = sign_bundle(bundle, load_private_key(tmp_path / "key"))
    admission = admit(bundle, public, "not needed")
    assert admission.forced is None
    assert annotations_of(admission)["spdy-edge.signed_by"] == signature.fingerprint
    with pytest.raises(RefusedError, match="another key") as caught:
        admit(bundle, other, None)
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(("change", "words"), [({"schema": 2}, "schema 2"), ({"host": None}, "none that this version")])
def test_a_certificate_that_cannot_be_read_helps_no_force(tmp_path: Path, change: Any, words: str) -> None:
    bundle = make_bundle(tmp_path, **change)
    with pytest.raises(ArtifactError, match=words):
        admit(bundle, None, "I insist")


def test_a_reason_must_say_something(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="needs a reason"):
        admit(bundle, None, " ")


def test_annotations_say_what_was_certified_and_no_path(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, "missed")
    annotations = annotations_of(admit(bundle, make_key(tmp_path / "release.key"), "canary"))
    assert annotations["spdy-edge.speedup_interval"] == "3.003 to 3.049"
    assert annotations["spdy-edge.host"] == "Intel Xeon Platinum 8488C"
    assert annotations["spdy-edge.forced"].startswith("canary (against: The bundle is not signed, and release.key.pub")
    assert str(tmp_path) not in json.dumps(annotations)
    assert all(isinstance(value, str) for value in annotations.values())


@pytest.mark.parametrize(
    ("destination", "options", "words"),
    [
        ("s3:bucket", Options(), "oci://registry/repository:tag, dir:PATH"),
        ("dir:", Options(), "Cannot publish"),
        ("somewhere", Options(), "Cannot publish"),
        ("oci://host/name:v1", Options(layout="plain"), "--layout"),
        ("dir:out", Options(overwrite=True), "--overwrite"),
        ("oci://127.0.0.1:1/name@sha256:" + "0" * 64, Options(), "needs a tag"),
    ],
)
def test_destinations_and_options_that_do_not_go_together(
    bundle: Path, destination: str, options: Options, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        publish(bundle, destination, public_key=None, why=None, options=options)

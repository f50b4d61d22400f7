"""A signature says who, and that nothing was altered since; anything else is refused."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.provenance.signing import (
    fingerprint,
    load_private_key,
    load_public_key,
    make_key,
    sign_bundle,
    verify_bundle,
)
from targets.errors import ArtifactError, ConfigError
from tests.bundles import make_bundle


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "release.key")
    return tmp_path / "release.key"


@pytest.fixture
def public(key: Path) -> Path:
    return key.with_name("release.key.pub")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path)


def test_what_was_signed_verifies_with_the_key_and_without_one(bundle: Path, key: Path, public: Path) -> None:
    made = sign_bundle(bundle, load_private_key(key))
    for trusted in (public, None):
        manifest, signature = verify_bundle(bundle, trusted)
        assert manifest["status"] == "certified"
        assert signature == made
    assert made.fingerprint == fingerprint(load_public_key(public))
    assert [path.name for path in bundle.parent.glob(".*")] == []


def test_an_unsigned_bundle_is_refused_where_a_key_is_named_alone(bundle: Path, public: Path) -> None:
    assert verify_bundle(bundle, None)[1] is None
    with pytest.raises(ArtifactError, match="not signed"):
        verify_bundle(bundle, public)


def test_another_key_is_refused(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, load_private_key(key))
    with pytest.raises(ArtifactError, match="another key"):
        verify_bundle(bundle, make_key(tmp_path / "other.key"))


def test_signing_again_replaces_the_signature(bundle: Path, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, load_private_key(key))
    other = make_key(tmp_path / "other.key")
    sign_bundle(bundle, load_private_key(tmp_path / "other.key"))
    assert verify_bundle(bundle, other)[1]


def alter_manifest(bundle: Path) -> None:
    """Someone changes a file and its hash."""
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace("certified", "certifieD", 1))


def forge_fingerprint(bundle: Path) -> None:
    """Someone signs with a key of theirs and writes our fingerprint beside it."""
    ours = json.loads((bundle / "signature.json").read_text())
    make_key(bundle.parent / "evil.key")
    sign_bundle(bundle, load_private_key(bundle.parent / "evil.key"))
    theirs = json.loads((bundle / "signature.json").read_text())
    (bundle / "signature.json").write_text(json.dumps(theirs | {"fingerprint": ours["fingerprint"]}))


def garble(bundle: Path) -> None:
    data = json.loads((bundle / "signature.json").read_text())
    (bundle / "signature.json").write_text(json.dumps(data | {"signature": "AAAA"}))


@pytest.mark.parametrize("trusted", [True, False])
@pytest.mark.parametrize("damage", [alter_manifest, forge_fingerprint, garble])
def test_an_altered_manifest_or_signature_is_refused(
    bundle: Path, key: Path, public: Path, damage: object, trusted: bool
) -> None:
    assert callable(damage)
    sign_bundle(bundle, load_private_key(key))
    damage(bundle)
    with pytest.raises(ArtifactError, match="altered after signing"):
        verify_bundle(bundle, public if trusted else None)


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"schema": 2}'])
def test_a_signature_of_another_form_is_refused(bundle: Path, content: str) -> None:
    (bundle / "signature.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"signature\.json"):
        verify_bundle(bundle, None)


def test_an_altered_bundle_is_not_signed(bundle: Path, key: Path) -> None:
    (bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"model\.onnx was changed"):
        sign_bundle(bundle, load_private_key(key))
    assert not (bundle / "signature.json").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_may_read_is_refused(key: Path, mode: int) -> None:
    key.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_private_key(key)


def test_files_that_are_no_keys_are_refused_without_showing_them(key: Path, public: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("secret words")
    broken.chmod(0o600)
    public.chmod(0o600)
    for path in (broken, public, tmp_path / "none"):
        with pytest.raises(ConfigError, match=path.name) as caught:
            load_private_key(path)
        assert "secret words" not in str(caught.value)
    for path in (broken, key, tmp_path / "none"):
        with pytest.raises(ConfigError, match=path.name):
            load_public_key(path)


def test_a_key_is_its_owners_alone_and_never_overwritten(key: Path, public: Path, tmp_path: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    before = key.read_bytes(), public.read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        make_key(key)
    public.unlink()
    with pytest.raises(ConfigError, match="exists"):
        make_key(key)
    assert key.read_bytes() == before[0]
    assert not public.exists()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_agrees(bundle: Path, key: Path, tmp_path: Path) -> None:
    """Keys of openssl sign, and openssl verifies what was signed with nothing of ours."""
    import base64

    theirs, public, raw = tmp_path / "openssl.key", tmp_path / "openssl.pub", tmp_path / "raw"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", theirs], check=True)
    theirs.chmod(0o600)
    subprocess.run(["openssl", "pkey", "-in", theirs, "-pubout", "-out", public], check=True)
    signature = sign_bundle(bundle, load_private_key(theirs))
    raw.write_bytes(base64.b64decode(signature.signature))
    check = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-sigfile", raw, "-in"]
    assert subprocess.run([*check, bundle / "manifest.json"], capture_output=True, check=False).returncode == 0
    assert subprocess.run([*check, bundle / "model.onnx"], capture_output=True, check=False).returncode != 0

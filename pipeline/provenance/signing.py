"""Signatures of bundles: the user's own Ed25519 key over the manifest's bytes, and so over the hash of every file."""

import base64
import os
import stat
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from pipeline.releases.bundle import MANIFEST, SIGNATURE, check_bundle
from pipeline.run_folder import read_json, write_json
from targets.errors import ArtifactError, ConfigError

SCHEMA = 1
ALGORITHM = "Ed25519"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Signature:
    """What ``signature.json`` holds.

    Args:
        public_key: PEM; without a key to compare it with, it only shows that the manifest was not altered since.
        fingerprint: ``sha256:`` and the hash of the public key in DER.
        signature: base64, over the bytes of ``manifest.json``.
    """

    public_key: str
    fingerprint: str
    signature: str
    algorithm: str = ALGORITHM
    schema: int = SCHEMA


def make_key(path: Path) -> Path:
    """Write a new private key, readable by its owner alone, and beside it the public key, whose path is given back.

    Raises:
        ConfigError: a file is there already, or cannot be written.
    """
    public = path.with_name(path.name + ".pub")
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    if public.exists():
        raise ConfigError(f"{public} exists, and a key is never overwritten. Choose another name.")
    try:
        for file, content, mode in ((path, pem, 0o600), (public, _pem(key.public_key()).encode(), 0o644)):
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(content)
    except FileExistsError:
        raise ConfigError(f"{file} exists, and a key is never overwritten. Choose another name.") from None
    except OSError as error:
        raise ConfigError(f"Cannot write {file}: {error.strerror}.") from None
    return public


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The key that signs.

    Raises:
        ConfigError: it is missing, others may read it, or it is no unencrypted Ed25519 key.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            pem = file.read()
    except OSError as error:
        raise ConfigError(
            f"Cannot read the signing key {path}: {error.strerror}. `pipeline keygen` makes one."
        ) from None
    if mode & OTHERS:
        raise ConfigError(
            f"The signing key {path} may be read by others (permissions {mode:03o}): chmod 600 {path}, and if others "
            "have been there, make a new key."
        )
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # the reasons name formats, never what is in the file
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{path} is no unencrypted Ed25519 private key in PEM form. Make one: pipeline keygen FILE, or "
            "openssl genpkey -algorithm ed25519 -out FILE"
        )
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """The key that signatures are checked with.

    Raises:
        ConfigError: it is missing or no Ed25519 public key.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read the public key {path}: {error.strerror}.") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(
            f"{path} is no Ed25519 public key in PEM form. The one of a private key: "
            "openssl pkey -in PRIVATE -pubout -out PUBLIC"
        )
    return key


def fingerprint(key: Ed25519PublicKey) -> str:
    """``sha256:`` and the hash of the key in DER, as `openssl pkey -pubin -outform DER | sha256sum` gives it."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + sha256(der).hexdigest()


def sign_bundle(bundle: Path, key: Ed25519PrivateKey) -> Signature:
    """Write ``signature.json`` into an unaltered bundle; an earlier signature is replaced.

    Raises:
        ArtifactError: the bundle is not as its manifest says.
    """
    check_bundle(bundle)
    signature = _sign(key, (bundle / MANIFEST).read_bytes())
    beside = bundle.with_name(f".{bundle.name}.{SIGNATURE}")  # a file left inside would be one that was added
    write_json(beside, asdict(signature))
    beside.replace(bundle / SIGNATURE)
    return signature


def sign_file(path: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of any file beside it, and give its path."""
    beside = path.with_name(f"{path.name}.{SIGNATURE}")
    write_json(beside, asdict(_sign(key, path.read_bytes())))
    return beside


def verify_file(path: Path, public_key: Path) -> None:
    """Check the signature beside a file.

    Raises:
        ArtifactError: there is none, or it is not this key's of this content.
        ConfigError: the public key cannot be read.
    """
    trusted = load_public_key(public_key)
    signature = _read(path.with_name(f"{path.name}.{SIGNATURE}"))
    if signature is None or not _is_valid(signature, trusted, path.read_bytes()):
        raise ArtifactError(f"{path} is not signed by {public_key}, or was altered after signing. Verify again.")


def _sign(key: Ed25519PrivateKey, content: bytes) -> Signature:
    public = key.public_key()
    return Signature(_pem(public), fingerprint(public), base64.b64encode(key.sign(content)).decode())


def read_signature(bundle: Path) -> Signature | None:
    """The signature as it stands there, checked against nothing.

    Raises:
        ArtifactError: it is broken or another version's.
    """
    return _read(bundle / SIGNATURE)


def _read(path: Path) -> Signature | None:
    if not path.exists():
        return None
    try:
        signature = Signature(**read_json(path))
        if (signature.schema, signature.algorithm) != (SCHEMA, ALGORITHM):
            raise ValueError
    except (TypeError, ValueError):
        raise ArtifactError(f"{path} is no signature that this version reads.") from None
    return signature


def verify_bundle(bundle: Path, public_key: Path | None) -> tuple[dict[str, Any], Signature | None]:
    """The manifest of an unaltered bundle, and its signature, which must be by ``public_key`` where one is given.

    Raises:
        ArtifactError: the bundle was altered, its signature is not of its manifest, or it is not signed by that key.
        ConfigError: the public key cannot be read.
    """
    trusted = load_public_key(public_key) if public_key else None
    manifest, signature = check_bundle(bundle), read_signature(bundle)
    if signature is None:
        if trusted:
            raise ArtifactError(
                f"The bundle {bundle} is not signed, and {public_key} says that it must be.\n"
                "Get it from where it was published, or sign it: pipeline sign BUNDLE --key FILE"
            )
        return manifest, None
    if trusted and fingerprint(trusted) != signature.fingerprint:
        raise ArtifactError(
            f"The bundle {bundle} is signed by another key ({signature.fingerprint}), not by {public_key} "
            f"({fingerprint(trusted)}).\nGet it from its maker, or check with that maker's public key."
        )
    if not _is_valid(signature, trusted, (bundle / MANIFEST).read_bytes()):
        raise ArtifactError(
            f"The signature of the bundle {bundle} is not of its manifest: one of them was altered after signing.\n"
            "Get the bundle again from where it was published."
        )
    return manifest, signature


def _is_valid(signature: Signature, trusted: Ed25519PublicKey | None, signed: bytes) -> bool:
    try:
        key = trusted or serialization.load_pem_public_key(signature.public_key.encode())
        if not isinstance(key, Ed25519PublicKey) or fingerprint(key) != signature.fingerprint:
            return False
        key.verify(base64.b64decode(signature.signature), signed)
    except (ValueError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def _pem(key: Ed25519PublicKey) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()

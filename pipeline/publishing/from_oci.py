"""A bundle back from a registry: whole, hashed and checked, or not there."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.provenance.signing import Signature, verify_bundle
from pipeline.publishing.reference import Reference
from pipeline.publishing.registry import TIMEOUT_S, OnFile, Registry
from pipeline.publishing.to_oci import ARTIFACT_TYPE, TITLE, digest_of
from targets.errors import ArtifactError, ConfigError


def fetch_from_oci(
    reference: Reference,
    out: Path,
    public_key: Path | None,
    *,
    timeout_s: float = TIMEOUT_S,
    on_file: OnFile | None = None,
) -> tuple[dict[str, Any], Signature | None]:
    """Fetch a bundle into a folder that does not exist yet; it appears there once it is whole and verified.

    Args:
        public_key: who must have signed it, if anyone must.
        on_file: told how many of how many files are done, and which comes next.

    Returns:
        Its manifest and its signature.

    Raises:
        ArtifactError: it is no bundle, was altered, or is not signed as it must be.
        ConfigError: the folder exists, there is nothing under the reference, or the credentials are refused.
        UnreachableError: the registry is down or slow.
    """
    if out.exists():
        raise ConfigError(f"{out} exists. Choose another folder with --out.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            part = Path(scratch) / out.name  # keeps usual permissions, which the scratch folder has not
            with Registry(reference, timeout_s) as registry:
                _download(registry, reference, part, on_file)
            found = verify_bundle(part, public_key)
            part.rename(out)
    except OSError as error:
        raise ConfigError(f"Cannot write {out}: {error.strerror}.") from None
    return found


def _download(registry: Registry, reference: Reference, part: Path, on_file: OnFile | None) -> None:
    files = _files(registry, reference)
    for number, (name, layer) in enumerate(files.items()):
        if on_file:
            on_file(number, len(files), name)
        path = part / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(registry, layer, path, name)


def _files(registry: Registry, reference: Reference) -> dict[str, Mapping[str, Any]]:
    """Name in the bundle → descriptor of its blob."""
    content = registry.manifest(reference.version)
    if reference.digest and digest_of(content) != reference.digest:
        raise ArtifactError(f"The registry's answer for {reference} has another digest: it was altered on the way.")
    try:
        manifest = json.loads(content)
        if manifest.get("artifactType") != ARTIFACT_TYPE:
            raise ArtifactError(f"{reference} is no bundle but {manifest.get('artifactType', 'something else')!r}.")
        files = {layer["annotations"][TITLE]: layer for layer in manifest["layers"]}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ArtifactError(f"The manifest of {reference} is broken.") from None
    for name in files:
        if not _is_inside(name):
            raise ArtifactError(f"{reference} holds a file that would lie outside of its folder: {name!r}.")
    return files


def _is_inside(name: Any) -> bool:
    parts = PurePosixPath(name).parts if isinstance(name, str) and name and "\\" not in name else ("..",)
    return bool(parts) and ".." not in parts and parts[0] != "/"


def _save(registry: Registry, layer: Mapping[str, Any], path: Path, name: str) -> None:
    """Write one blob, and stop as soon as it is longer than it said."""
    hashed, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in registry.download(layer["digest"]):
            size += len(chunk)
            if size > layer["size"]:
                break
            hashed.update(chunk)
            file.write(chunk)
    if size != layer["size"] or f"sha256:{hashed.hexdigest()}" != layer["digest"]:
        raise ArtifactError(f"{name} came otherwise than the registry's manifest says: altered, or cut off. Try again.")

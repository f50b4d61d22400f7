"""A bundle as an OCI artifact: one blob a file, named as `oras` names them, and the manifest last."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.publishing.reference import Reference
from pipeline.publishing.registry import MANIFEST_TYPE, TIMEOUT_S, OnFile, Registry
from pipeline.run_folder import file_digest
from targets.errors import ConfigError

ARTIFACT_TYPE = "application/vnd.spdy-edge.bundle.v1"
EMPTY_TYPE, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
TITLE = "org.opencontainers.image.title"
CHUNK = 1 << 20
FILE_TYPES = {".json": "application/json", ".md": "text/markdown", ".html": "text/html", ".xml": "application/xml"}


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file's bytes, from the start as often as they are asked for: a request may have to be repeated."""

    path: Path

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


def publish_to_oci(
    bundle: Path,
    reference: Reference,
    annotations: Mapping[str, str],
    *,
    overwrite: bool = False,
    timeout_s: float = TIMEOUT_S,
    on_file: OnFile | None = None,
) -> str:
    """Push every file of a bundle; the tag appears once all of them are there, so that no one sees half a bundle.

    Args:
        on_file: told how many of how many files are done, and which comes next.

    Returns:
        Digest of the manifest: the reference that cannot change.

    Raises:
        ConfigError: no tag or one that exists, or credentials that the registry refuses.
        UnreachableError: the registry is down, full or slow.
    """
    if reference.tag is None:
        raise ConfigError(f"{reference} is a digest; publishing needs a tag, such as :v1.")
    files = {path.relative_to(bundle).as_posix(): path for path in sorted(bundle.rglob("*")) if path.is_file()}
    layers = [_layer(name, path) for name, path in files.items()]
    manifest = _manifest(layers, annotations)
    with Registry(reference, timeout_s) as registry:
        if not overwrite and registry.has_manifest(reference.tag):
            raise ConfigError(
                f"{reference} exists, and others may rely on it. Choose another tag, or say --overwrite to replace it."
            )
        registry.upload(_descriptor(EMPTY_TYPE, EMPTY)["digest"], len(EMPTY), [EMPTY])
        for number, (layer, (name, path)) in enumerate(zip(layers, files.items(), strict=True)):
            if on_file:
                on_file(number, len(files), name)
            registry.upload(layer["digest"], layer["size"], FileContent(path))
        registry.put_manifest(reference.tag, manifest)
    return digest_of(manifest)


def digest_of(content: bytes) -> str:
    """``sha256:`` and the hash."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _manifest(layers: list[dict[str, Any]], annotations: Mapping[str, str]) -> bytes:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": _descriptor(EMPTY_TYPE, EMPTY),
        "layers": layers,
        "annotations": dict(annotations),
    }
    return json.dumps(manifest).encode()


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _layer(name: str, path: Path) -> dict[str, Any]:
    return {
        "mediaType": FILE_TYPES.get(path.suffix, "application/octet-stream"),
        "digest": f"sha256:{file_digest(path)}",
        "size": path.stat().st_size,
        "annotations": {TITLE: name},
    }

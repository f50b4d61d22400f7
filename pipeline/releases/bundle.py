"""The bundle: the folder that ships, and the manifest that says whether it is still what was certified."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.run_folder import file_digest, read_json, write_json
from targets.errors import ArtifactError, ConfigError

SCHEMA = 1
MANIFEST = "manifest.json"
SIGNATURE = "signature.json"
"""Over the manifest's bytes, so that it is the one file that the manifest cannot list."""


def write_bundle(bundle: Path, files: Mapping[str, Path], details: Mapping[str, Any]) -> None:
    """Copy files into a bundle under their names there, and write the manifest last.

    The files appear under a temporary folder name first, so that a bundle is whole or not there. A bundle of an
    earlier attempt in the same run folder is moved aside, never deleted.

    Args:
        files: name in the bundle → where it is now.
        details: goes into the manifest beside the hashes.
    """
    part = bundle.with_name(bundle.name + ".part")
    shutil.rmtree(part, ignore_errors=True)  # ours, of a killed attempt
    part.mkdir(parents=True)
    for name, source in files.items():
        target = part / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    hashes = {name: {"sha256": file_digest(part / name), "bytes": (part / name).stat().st_size} for name in files}
    write_json(part / MANIFEST, {"schema": SCHEMA, **details, "files": hashes})
    _put_in_place(part, bundle)


def copy_bundle(source: Path, bundle: Path) -> None:
    """Have a bundle in a second place as well, whole or not at all; another one that is there is moved aside."""
    if bundle.exists() and all(_content(bundle / name) == _content(source / name) for name in (MANIFEST, SIGNATURE)):
        return
    part = bundle.with_name(bundle.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    _put_in_place(part, bundle)


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _put_in_place(part: Path, bundle: Path) -> None:
    """Give a folder that is whole the bundle's name; what has it now is moved aside."""
    if bundle.exists():
        number = 1
        while (old := bundle.with_name(f"{bundle.name}.{number}")).exists():
            number += 1
        bundle.rename(old)
    part.rename(bundle)


def check_bundle(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle whose every file is as it was written; its signature is another's matter.

    Raises:
        ConfigError: there is no such folder.
        ArtifactError: no manifest, another version's, or a file that is missing, changed or was added.
    """
    manifest = read_manifest(bundle)
    files: dict[str, Any] = manifest["files"]
    there = (path for path in bundle.rglob("*") if path.is_symlink() or not path.is_dir())  # links lead to more files
    present = {str(path.relative_to(bundle)) for path in there} - {MANIFEST, SIGNATURE}
    problems = [f"{name} is missing" for name in sorted(files.keys() - present)]
    problems += [f"{name} was added" for name in sorted(present - files.keys())]
    problems += [
        f"{name} was changed"
        for name in sorted(files.keys() & present)
        if _digest(bundle / name) != files[name]["sha256"]
    ]
    if problems:
        raise ArtifactError(
            f"The bundle {bundle} is not what was certified: {'; '.join(problems)}.\n"
            "Get it again from where it was published, or run the pipeline again."
        )
    return manifest


def require_folder(bundle: Path) -> None:
    """Whatever its state, a bundle is a folder.

    Raises:
        ConfigError: there is none.
    """
    if not bundle.is_dir():
        raise ConfigError(f"There is no bundle {bundle}. Give the folder `bundle` of a run that wrote its report.")


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle, whether its files are as it says or not.

    Raises:
        ConfigError: there is no such folder.
        ArtifactError: it has no manifest, another version's, or a damaged one.
    """
    require_folder(bundle)
    if not (bundle / MANIFEST).exists():
        raise ArtifactError(f"{bundle} has no {MANIFEST}: it is no bundle, or only a part of one. Get it again, whole.")
    try:
        manifest = read_json(bundle / MANIFEST)
    except ArtifactError:
        raise ArtifactError(
            f"{bundle / MANIFEST} cannot be read: it is cut off, or was damaged. Get the bundle again, whole."
        ) from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        found = manifest.get("schema") if isinstance(manifest, dict) else None
        raise ArtifactError(
            f"{bundle} has a manifest of schema {found}, and this version reads {SCHEMA}: another version wrote it. "
            "Use that version of spdy-edge, or make the bundle again with this one."
        )
    files = manifest.get("files")
    is_whole = isinstance(files, dict) and all(isinstance(f, dict) and "sha256" in f for f in files.values())
    if "status" not in manifest or not is_whole:
        raise ArtifactError(f"{bundle / MANIFEST} lists no files and hashes: it was damaged. Get the bundle again.")
    return manifest


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        raise ArtifactError(
            f"Cannot read {path}: {error.strerror}. Make it readable, or get the bundle again."
        ) from None

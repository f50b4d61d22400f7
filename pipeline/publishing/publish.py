"""Publishing a bundle: what is admitted goes where the destination's scheme says."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pipeline.publishing.admission import Admission, admit
from pipeline.publishing.reference import Reference
from pipeline.publishing.registry import TIMEOUT_S, OnFile
from pipeline.run_folder import write_json
from targets.errors import ConfigError

Layout = Literal["openvino-model-server", "triton", "plain"]
PREFIX = "spdy-edge."
"""Of our annotations in a registry."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to publish.

    Args:
        layout: of a folder; None where nothing was said.
        overwrite: replace a tag that exists.
        timeout_s: how long a registry may be silent.
    """

    layout: Layout | None = None
    overwrite: bool = False
    timeout_s: float = TIMEOUT_S
    on_file: OnFile | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """Where a bundle went.

    Args:
        digest: of the registry's manifest, where there is one.
        forced: why it was published against what stood against it.
    """

    where: str
    digest: str | None
    forced: str | None


def publish(bundle: Path, destination: str, *, public_key: Path | None, why: str | None, options: Options) -> Published:
    """Publish a bundle that may be published.

    Args:
        destination: ``oci://registry/repository:tag``, ``dir:PATH`` or ``mlflow:NAME[@URI]``.
        public_key: who must have signed it, if anyone must.
        why: reason to publish it against all objections.

    Raises:
        RefusedError: it may not be published.
        ConfigError: the destination or an option is wrong, or taken.
        UnreachableError: the destination does not answer.
    """
    scheme = _scheme(destination)
    if options.layout and scheme != "dir":
        raise ConfigError(f"--layout is for folders (dir:PATH), not for {scheme}.")
    if options.overwrite and scheme != "oci":
        raise ConfigError(f"--overwrite is for tags of a registry (oci://…), not for {scheme}.")
    reference = Reference.parse(destination) if scheme == "oci" else None
    admission = admit(bundle, public_key, why)
    rest = destination.partition(":")[2]
    if reference:
        return _to_oci(bundle, reference, admission, options)
    return _to_folder(bundle, rest, admission, options) if scheme == "dir" else _to_mlflow(bundle, rest, admission)


def _scheme(destination: str) -> str:
    scheme, _, rest = destination.partition(":")
    if scheme not in ("oci", "dir", "mlflow") or not rest:
        raise ConfigError(
            f"Cannot publish to {scheme!r}. There are oci://registry/repository:tag, dir:PATH and mlflow:NAME[@URI]."
        )
    return scheme


def annotations_of(admission: Admission) -> dict[str, str]:
    """What a registry shows of a bundle without anyone fetching it."""
    ours = dict(admission.facts) | {"manifest_sha256": admission.manifest_sha256}
    if admission.signature:
        ours["signed_by"] = admission.signature.fingerprint
    if admission.forced:
        ours["forced"] = admission.forced
    return {
        "org.opencontainers.image.created": _now(),
        "org.opencontainers.image.description": f"a network that is {admission.facts['measured_speedup']}x as fast as "
        f"its dense original, {admission.facts['status']}",
        **{PREFIX + name: value for name, value in ours.items()},
    }


def _to_oci(bundle: Path, reference: Reference, admission: Admission, options: Options) -> Published:
    from pipeline.publishing.to_oci import publish_to_oci

    digest = publish_to_oci(
        bundle,
        reference,
        annotations_of(admission),
        overwrite=options.overwrite,
        timeout_s=options.timeout_s,
        on_file=options.on_file,
    )
    return Published(str(reference), digest, admission.forced)


def _to_folder(bundle: Path, path: str, admission: Admission, options: Options) -> Published:
    from pipeline.publishing.to_folder import publish_to_folder

    folder = publish_to_folder(bundle, Path(path), options.layout or "plain")
    if admission.forced:  # beside the folder, in which a server would take it for a model
        write_json(folder.with_name(folder.name + ".forced.json"), {"forced": admission.forced, "published": _now()})
    return Published(str(folder), None, admission.forced)


def _to_mlflow(bundle: Path, rest: str, admission: Admission) -> Published:
    from pipeline.publishing.to_mlflow import publish_to_mlflow

    name, _, uri = rest.partition("@")
    return Published(publish_to_mlflow(bundle, name, uri or None, admission.forced), None, admission.forced)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

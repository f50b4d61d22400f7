"""What may be published: an unaltered bundle with a certified certificate, or one that someone answers for."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.certification.certificate import CERTIFIED, EXIT_CODES
from pipeline.certification.certificate import SCHEMA as CERTIFICATE_SCHEMA
from pipeline.provenance.facts import certificate_facts
from pipeline.provenance.signing import Signature, read_signature, verify_bundle
from pipeline.releases.bundle import read_manifest
from pipeline.run_folder import file_digest, read_json
from targets.errors import ArtifactError, ConfigError, UserError


class RefusedError(UserError):
    """A bundle may not be published; the exit code says why, as it would for the run that made it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Admission:
    """A bundle that may be published.

    Args:
        facts: of its certificate.
        forced: who forced what and why; None where nothing stood against it.
    """

    facts: Mapping[str, str]
    manifest_sha256: str
    signature: Signature | None
    forced: str | None


def admit(bundle: Path, public_key: Path | None, why: str | None) -> Admission:
    """Look whether a bundle may be published.

    Args:
        public_key: who must have signed it, if anyone must.
        why: reason to publish it all the same; it is recorded with what stood against it.

    Raises:
        RefusedError: it may not: 5 altered or not signed as it must be, 3 speedup missed, 6 inconclusive.
        ArtifactError: there is no manifest or no certificate that this version reads; no reason helps against that.
        ConfigError: the reason is empty, or the key cannot be read.
    """
    if why is not None and not why.strip():
        raise ConfigError("--force needs a reason, which is recorded: --force 'canary, goes no further'.")
    read_manifest(bundle)
    certificate = read_json(bundle / "certificate.json")
    facts = _facts(bundle, certificate)
    problems = _problems(bundle, public_key, facts["status"])
    if problems and why is None:
        text, code = problems[0]
        raise RefusedError(f"{text}\nIt is not published. To publish it all the same, say why: --force WHY", code)
    against = "; ".join(_without_folders(text.partition("\n")[0], bundle, public_key) for text, _ in problems)
    forced = f"{why} (against: {against})" if problems else None
    return Admission(facts, file_digest(bundle / "manifest.json"), read_signature(bundle), forced)


def _without_folders(text: str, bundle: Path, public_key: Path | None) -> str:
    """For a record that others read."""
    text = text.replace(f"bundle {bundle} ", "bundle ")
    return text.replace(str(public_key), public_key.name) if public_key else text


def _facts(bundle: Path, certificate: Any) -> dict[str, str]:
    try:
        if certificate["schema"] != CERTIFICATE_SCHEMA:
            raise ArtifactError(
                f"The certificate of {bundle} is of schema {certificate['schema']}, and this version reads "
                f"{CERTIFICATE_SCHEMA}. Publish it with the version that made it, or a newer one."
            )
        return certificate_facts(certificate)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"The certificate of {bundle} is none that this version reads ({error!r}).") from None


def _problems(bundle: Path, public_key: Path | None, status: str) -> list[tuple[str, int]]:
    """What stands against publishing, with exit codes, the gravest first."""
    problems = []
    try:
        verify_bundle(bundle, public_key)
    except ArtifactError as error:
        problems.append((str(error), error.exit_code))
    if status != CERTIFIED:
        text = f"The bundle {bundle} is not certified: its certificate says {status}."
        problems.append((text, EXIT_CODES.get(status, ArtifactError.exit_code)))
    return problems

"""The gate of a release job: whether a bundle's certificate holds what was asked for. Nothing is measured."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.certification.certificate import CERTIFIED, EXIT_CODES, INCONCLUSIVE
from pipeline.releases.bundle import MANIFEST
from pipeline.releases.checks import Check, check, first_failure
from pipeline.releases.release import CertificateRecord, Release, read_bundle, read_release
from pipeline.releases.release_changes import Figure, compare, number
from pipeline.releases.verified import Verified
from pipeline.run_folder import file_digest
from reports import formatting
from targets.errors import AccuracyError, ArtifactError, SpeedupError

SPEED, ACCURACY, ARTIFACT = SpeedupError.exit_code, AccuracyError.exit_code, ArtifactError.exit_code


@dataclass(frozen=True, slots=True)
class Limits:
    """What is asked of a bundle; None is not asked.

    Args:
        min_speedup: that the lower end of the speedup's interval reaches.
        max_drop: accuracy points that may be lost against the dense network.
        max_latency_ms: of the compressed network.
        max_size_mb: of model.onnx, in 10⁶ bytes.
    """

    min_speedup: float | None = None
    max_drop: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every check in the order of what its failure means, the worst first; the first that failed decides."""

    bundle: Path
    checks: tuple[Check, ...]
    release: Release | None

    @property
    def exit_code(self) -> int:
        """0 if nothing failed."""
        return first_failure(self.checks)

    @property
    def status(self) -> str:
        """``passed`` or ``failed``."""
        return "failed" if self.exit_code else "passed"

    def to_json(self) -> dict[str, Any]:
        """Plain lists, strings and numbers; the certificate without its samples."""
        return {
            "status": self.status,
            "exit_code": self.exit_code,
            "bundle": str(self.bundle),
            "checks": [asdict(check) for check in self.checks],
            "certificate": self.release and self.release.certificate.model_dump(mode="json"),
        }


def pass_gate(
    bundle: Path,
    limits: Limits,
    against: Path | None = None,
    verified: Verified | None = None,
    public_key: Path | None = None,
) -> Verdict:
    """Hold a bundle against limits, and against another release.

    Args:
        verified: what was found on the device, which a proxy's certificate needs.
        public_key: that must have signed the bundle; None where nobody needs to have.

    Raises:
        ConfigError: there is no such bundle, release or key.
    """
    from pipeline.provenance.signing import verify_bundle  # with all of its cryptography only where it is asked for

    try:
        if public_key:
            verify_bundle(bundle, public_key)
        release = read_bundle(bundle)
        other = read_release(against) if against else None
    except ArtifactError as error:
        return Verdict(bundle, (Check("unaltered", "failed", "as certified", str(error), ARTIFACT),), None)
    return Verdict(bundle, tuple(_checks(bundle, release, limits, other, verified)), release)


def _checks(
    bundle: Path, release: Release, limits: Limits, other: Release | None, verified: Verified | None
) -> Iterator[Check]:
    """Altered, then wrong, then unproven, then slow, then large."""
    certificate = release.certificate
    changes = compare(other, release) if other else None
    yield Check("unaltered", "passed", "as certified", f"{len(release.files)} files, all as certified")
    if limits.max_drop is not None:
        yield _accuracy(release, limits.max_drop)
    if changes:
        yield _against(changes.figure("accuracy"), ACCURACY)
    code = EXIT_CODES[certificate.status]
    asked = f"{CERTIFIED} at {formatting.requested(certificate.requested_speedup)}"
    yield check("certificate", code == 0, asked, certificate.status, code)
    if certificate.proxy:
        yield _proxy(bundle, certificate, verified)
    if limits.min_speedup is not None:
        bounds = (certificate.ci_low, certificate.ci_high)
        found = number("ratio", certificate.measured_speedup, bounds)
        asked = f"interval from {formatting.requested(limits.min_speedup)} on"
        yield check("speedup", certificate.ci_low >= limits.min_speedup, asked, found, SPEED)
    if changes:
        yield _against(changes.figure("speedup"), SPEED)
    if limits.max_latency_ms is not None:
        latency_s = certificate.compressed.latency_s
        asked, found = f"at most {limits.max_latency_ms:g} ms", number("seconds", latency_s)
        yield check("latency", 1000 * latency_s <= limits.max_latency_ms, asked, found, SPEED)
    if limits.max_size_mb is not None:
        size = (bundle / "model.onnx").stat().st_size
        asked, found = f"at most {limits.max_size_mb:g} MB", number("bytes", size)
        yield check("size", size <= 1e6 * limits.max_size_mb, asked, found, ARTIFACT)


def _proxy(bundle: Path, certificate: CertificateRecord, verified: Verified | None) -> Check:
    """Whether a certificate of another host was verified on a device that it is for."""
    asked = "measured on the target, or a proxy with a record of `pipeline verify` there: --verified RECORD"
    code = EXIT_CODES[INCONCLUSIVE]
    if verified is None:
        return check("proxy", False, asked, "a proxy, and no record", code)
    obstacle = _obstacle(bundle, certificate, verified)
    return check("proxy", not obstacle, asked, f"a proxy, {obstacle or f'verified on {verified.host.model}'}", code)


def _obstacle(bundle: Path, certificate: CertificateRecord, verified: Verified) -> str:
    """Why a record does not speak for a proxy; empty if it does."""
    vendor, host = certificate.target.vendor, verified.host
    if verified.manifest_sha256 != file_digest(bundle / MANIFEST):
        return "and the record is of another bundle"
    if verified.exit_code:
        return f"and the record says {verified.status}"
    if verified.speedup is None or verified.speedup.requested_speedup < certificate.requested_speedup:
        return f"and the record does not claim {formatting.requested(certificate.requested_speedup)}"
    if vendor not in ("any", host.vendor) or host.id == certificate.host.id:
        return f"and the record is of {host.model}, which is not what the target names"
    if certificate.table_host_id not in (None, certificate.host.id, host.id):
        return f"and the record is of {host.model}, which is not the host that the latency table is of"
    return ""


def _accuracy(release: Release, most: float) -> Check:
    accuracy = release.certificate.accuracy
    scores = f"{number('fraction', accuracy.dense)} → {number('fraction', accuracy.compressed)}"
    found = f"{accuracy.metric} {scores}, {formatting.points(accuracy.difference, 2)} points"
    # Binary fractions make 1.0000000000000009 points of 1, which is nobody's loss.
    passed = round(-100 * accuracy.difference, 9) <= most
    return check("accuracy", passed, f"at most {most:g} points lost", found, ACCURACY)


def _against(figure: Figure, code: int) -> Check:
    name, asked = f"{figure.name} against", "no worse: intervals that do not part"
    before, after, _ = figure.texts
    found = f"{before} → {after}, {figure.verdict} ({figure.why})"
    if figure.verdict == "not judged":
        return Check(name, "skipped", asked, found)
    return check(name, figure.verdict != "worse", asked, found, code)

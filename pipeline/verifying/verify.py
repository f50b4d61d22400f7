"""Is a bundle still what was certified, and does its speedup hold here? Nothing in the bundle is changed."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.certification.certificate import CERTIFIED, EXIT_CODES, INCONCLUSIVE, verdict
from pipeline.certification.evidence import Protocol, SpeedupEvidence, disturbances_of, measure_speedup
from pipeline.certification.hidden_costs import hidden_costs
from pipeline.releases.bundle import MANIFEST, require_folder
from pipeline.releases.checks import Check, check, first_failure
from pipeline.releases.release import CertificateRecord, read_bundle
from pipeline.releases.release_changes import number
from pipeline.run_folder import file_digest
from pipeline.serving.record import ServingRecord
from pipeline.verifying.outputs import Golden, check_accuracy, check_golden, read_golden
from pipeline.verifying.sample import SAMPLE
from profilers.deployment import measure_deployment
from profilers.measure import Bench, Candidate, save_feeds
from reports import formatting
from targets.devices.base import Device
from targets.devices.registry import LOCAL, open_device
from targets.errors import ArtifactError, ConfigError, RuntimeMissingError
from targets.host import HostFingerprint
from targets.registry import RuntimeInfo, get_runtime
from targets.target import Target

SCHEMA = 1
STATUS = {0: "verified", 3: "missed", 4: "less accurate", 5: "altered", 6: "inconclusive", 7: "another host"}
UNMEASURED = "unaltered, speed not measured"
WORST_FIRST = (5, 7, 4, 3, 6, 0)
Progress = Callable[[str, int, int], None]
"""Told what is being measured, how much is done, and how much there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What is checked beyond hashes and signature.

    Args:
        files_only: nothing.
        measure: the speedup, which takes minutes.
        budget_s: seconds after which no new process is started to narrow the interval.
        min_speedup: the claim; None for the certificate's own.
        dense_latency_s: to compare with where the bundle has no dense network.
        tolerance: of the golden outputs, as a fraction of the largest.
        sample: .npz file with ``inputs`` and ``labels`` for the accuracy; None for the bundle's own, if it has one.
        strict_host: another CPU than the certificate's is a failure (7).
        host: the device to verify on, with its Python.
        precedence: what measures runs ahead of other processes there.
    """

    public_key: Path | None = None
    files_only: bool = False
    measure: bool = True
    budget_s: float | None = None
    min_speedup: float | None = None
    dense_latency_s: float | None = None
    tolerance: float = 1e-3
    sample: Path | None = None
    strict_host: bool = False
    host: str = LOCAL
    python: str | None = None
    precedence: bool = False
    protocol: Protocol = field(default_factory=Protocol)


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found, everything that is needed to find it again included.

    Args:
        manifest_sha256: which bundle it is about.
        details: facts of the host, the measured speedup with its samples, deployment, accuracy; absent if not measured.
    """

    created: str
    bundle: str
    manifest_sha256: str
    certificate_status: str
    signed_by: str | None
    trusted: bool
    checks: tuple[Check, ...]
    details: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """Of the worst kind of check that failed, 0 if none did."""
        return first_failure(sorted(self.checks, key=lambda check: WORST_FIRST.index(check.exit_code)))

    @property
    def status(self) -> str:
        """In a word; what was not measured is not verified."""
        if any(check.name == "speedup" and check.status != "skipped" for check in self.checks):
            return STATUS[self.exit_code]
        return STATUS[self.exit_code] if self.exit_code else UNMEASURED

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        fields = asdict(self)
        details: dict[str, Any] = fields.pop("details")
        return {"schema": SCHEMA, "status": self.status, "exit_code": self.exit_code, **fields, **details}


def verify(bundle: Path, options: VerifyOptions, on_progress: Progress = lambda *_: None) -> Verification:
    """Check a bundle, and measure its speedup again.

    Raises:
        ArtifactError: a file is missing, changed or added, the manifest is another version's, or the signature wrong.
        ConfigError: the sample, the key or the device's address is wrong, or a latency stated beside a dense network.
        RuntimeMissingError: the certified runtime is not there, or does not run the network.
        UnreachableError: the device went away.
    """
    from pipeline.provenance.signing import verify_bundle

    manifest, signature = verify_bundle(bundle, options.public_key)
    checks = [Check("files", "passed", "as certified", f"{len(manifest['files'])} files, all as certified")]
    if signature:
        compared = "" if options.public_key else ", compared with no key of yours"
        checks.append(Check("signature", "passed", "valid", f"{signature.fingerprint}{compared}"))
    details: dict[str, Any] = {}
    if not options.files_only:
        with _open(bundle, options) as session:
            for found in session.checks(on_progress):
                checks.append(found)
                if found.exit_code == 5:  # whatever else it does, it is not the network that was certified
                    break
            details = session.details
    return Verification(
        datetime.now(UTC).isoformat(timespec="seconds"),
        str(bundle),
        file_digest(bundle / MANIFEST),
        manifest["status"],
        signature.fingerprint if signature else None,
        bool(options.public_key),
        tuple(checks),
        details,
    )


def altered(bundle: Path, error: ArtifactError) -> Verification:
    """What is recorded of a bundle that is not what was certified."""
    manifest = bundle / MANIFEST
    return Verification(
        datetime.now(UTC).isoformat(timespec="seconds"),
        str(bundle),
        file_digest(manifest) if os.access(manifest, os.R_OK) else "",
        "not known",
        None,
        False,
        (Check("files", "failed", "as certified", str(error), error.exit_code),),
        {},
    )


@contextmanager
def _open(bundle: Path, options: VerifyOptions) -> "Iterator[_Session]":
    """The bundle's networks on the certified runtime, fed with golden inputs."""
    certificate, golden = read_bundle(bundle).certificate, read_golden(bundle)
    if options.dense_latency_s and (bundle / "dense.onnx").exists():
        raise ConfigError(f"{bundle} has dense.onnx, which is measured in turns: leave --dense-latency-ms out.")
    device = open_device(options.host, options.python)
    info = _runtime(certificate.target.runtime, device)
    threads = min(certificate.target.threads, device.cores())
    target = Target(
        name="verify",
        vendor="any",
        runtime=info.name,
        threads=threads,
        batch_size=certificate.target.batch_size,
        host=options.host,
        python=options.python,
        precedence=options.precedence,
    )
    with tempfile.TemporaryDirectory() as folder:
        inputs = None
        if golden:
            inputs = Path(folder, "inputs.npz")
            save_feeds(inputs, golden.batch(target.batch_size))  # large inputs: a bundle holds less than a batch
        yield _Session(bundle, options, certificate, golden, device, Bench(info, target, inputs))


def _runtime(name: str, device: Device) -> RuntimeInfo:
    if device.name == LOCAL:
        return get_runtime(name)
    found = {info.name: info for info in device.runtimes()}
    if name not in found:
        raise RuntimeMissingError(
            f"{device.name}: the bundle was certified on {name}, and the interpreter there has "
            f"{', '.join(found) or 'no runtime'}. Install it beside numpy, or name another interpreter with --python."
        )
    return found[name]


class _Session:
    """The checks that need the runtime, and what they find on the way."""

    def __init__(
        self,
        bundle: Path,
        options: VerifyOptions,
        certificate: CertificateRecord,
        golden: Golden | None,
        device: Device,
        bench: Bench,
    ) -> None:
        self._bundle, self._options, self._certificate, self._golden = bundle, options, certificate, golden
        self._device, self._bench, self._host = device, bench, device.host()
        self._model = Candidate("compressed", bundle / "model.onnx")
        dense = bundle / "dense.onnx"
        self._dense = Candidate("dense", dense) if dense.exists() else None
        self.details: dict[str, Any] = {
            "host": self._host.to_json(),
            "target": bench.target.to_json(),
            "runtime": {"name": bench.runtime.name, "version": bench.runtime.version},
        }

    def checks(self, on_progress: Progress) -> Iterator[Check]:
        """Every check, done as it is asked for."""
        options, bench, model = self._options, self._bench, self._model
        yield _check_host(self._host, self._certificate, options.strict_host)
        yield from _check_surroundings(self._certificate, bench, self._host)
        in_int8 = "int8" in self._certificate.compressed.precision
        yield check_golden(bench, model, self._golden, options.tolerance, in_int8)
        shipped = self._bundle / SAMPLE
        if sample := options.sample or (shipped if shipped.exists() else None):
            found, self.details["accuracy"] = check_accuracy(
                bench, self._dense, model, sample, self._certificate.accuracy, ServingRecord.load(self._bundle)
            )
            yield found
        if not options.measure:
            yield Check("speedup", "skipped", self._asked, "not measured (--no-measure)")
            return
        yield from self._check_speed(on_progress)

    @property
    def _requested(self) -> float:
        return self._options.min_speedup or self._certificate.requested_speedup

    @property
    def _asked(self) -> str:
        return f"interval from {formatting.requested(self._requested)} on"

    def _check_speed(self, on_progress: Progress) -> Iterator[Check]:
        options, bench = self._options, self._bench
        if self._dense is None and options.dense_latency_s is None:
            found = "not measured, the bundle has no dense.onnx: say --dense-latency-ms, or --no-measure"
            yield check("speedup", False, self._asked, found, EXIT_CODES[INCONCLUSIVE])
            return
        reference = self._dense or self._model
        evidence = measure_speedup(
            bench,
            reference.path,
            self._model.path,
            replace(options.protocol, budget_s=options.budget_s),
            seed=0,
            stated_dense_s=None if self._dense else options.dense_latency_s,
            on_process=lambda done, total: on_progress("measuring", done, total),
        )
        on_progress("deployment and hidden costs", 0, 1)
        candidates = [self._model, *([self._dense] if self._dense else [])]
        facts = measure_deployment(bench, candidates)
        self.details |= {
            "speedup": _speed_record(evidence, self._requested),
            "deployment": {label: found.to_json() for label, found in facts.items()},
        }
        yield _speed_check(evidence, self._requested, self._asked)
        yield from _compare_with_certificate(evidence, self._certificate)
        ways = {True: "ahead of other processes", False: "among other processes"}
        if self._certificate.was_ahead != evidence.is_ahead:
            yield Check("precedence", "noted", ways[self._certificate.was_ahead], ways[evidence.is_ahead])
        for text in disturbances_of(evidence, bench):
            yield Check("disturbance", "noted", "none", text)
        for name, text in hidden_costs(bench, self._model, evidence.supported_fraction).items():
            yield Check(f"hidden cost: {name}", "noted", "none", text)


def _check_host(host: HostFingerprint, certificate: CertificateRecord, is_strict: bool) -> Check:
    asked = f"{certificate.host.model} ({certificate.host.id})"
    if host.id == certificate.host.id:
        return Check("host", "passed", asked, "the same CPU")
    found = f"another: {host.model} ({host.id}); the certificate's figures are of the other one"
    if is_strict:
        return check("host", False, asked, found, RuntimeMissingError.exit_code)
    return Check("host", "noted", asked, found)


def _check_surroundings(certificate: CertificateRecord, bench: Bench, host: HostFingerprint) -> Iterator[Check]:
    """What the certificate itself leaves open; versions, cores and clocks that differ from its own."""
    if certificate.status != CERTIFIED or certificate.proxy:
        said = f"{certificate.status}{', a proxy of another host' if certificate.proxy else ''}"
        yield Check("certificate", "noted", CERTIFIED, said)
    certified, here = certificate.versions.get(bench.runtime.name), bench.runtime.version
    if certified != here:
        yield Check(f"version of {bench.runtime.name}", "noted", str(certified), str(here))
    wanted = certificate.target.threads
    if bench.target.threads < wanted:
        yield Check("threads", "noted", str(wanted), f"{host.usable_cores}: no more cores may be used here")
    if certificate.created and certificate.created > datetime.now(UTC):
        now = datetime.now(UTC).isoformat(timespec="seconds")
        yield Check("clock", "noted", f"after {certificate.created.isoformat()}", f"{now}: one of the clocks is wrong")


def _speed_check(evidence: SpeedupEvidence, requested: float, asked: str) -> Check:
    status = verdict(requested, evidence.speedup, evidence.noise_floor, evidence.is_disturbed)
    interval = evidence.speedup
    found = (
        f"{number('ratio', interval.value, (interval.low, interval.high))} in {len(evidence.processes)} processes, "
        f"noise floor {formatting.percent(evidence.noise_floor)}: {status}"
    )
    return check("speedup", EXIT_CODES[status] == 0, asked, found, EXIT_CODES[status])


def _compare_with_certificate(evidence: SpeedupEvidence, certificate: CertificateRecord) -> Iterator[Check]:
    """Intervals that part say that this is not the speed that was certified, whichever is faster."""
    here, low, high = evidence.speedup, certificate.ci_low, certificate.ci_high
    if here.high < low or here.low > high:
        asked = number("ratio", certificate.measured_speedup, (low, high))
        found = (
            f"{'slower' if here.high < low else 'faster'} here: {number('ratio', here.value, (here.low, here.high))}"
        )
        yield Check("certified speedup", "noted", asked, found)


def _speed_record(evidence: SpeedupEvidence, requested: float) -> dict[str, Any]:
    return {
        "requested_speedup": requested,
        "measured_speedup": evidence.speedup.value,
        "ci_low": evidence.speedup.low,
        "ci_high": evidence.speedup.high,
        "confidence": evidence.speedup.confidence,
        "noise_floor": evidence.noise_floor,
        "disturbed_fraction": evidence.disturbed_fraction,
        "is_disturbed": evidence.is_disturbed,
        "supported_fraction": evidence.supported_fraction,
        "samples": {"processes": [asdict(process) for process in evidence.processes]},
    }


def place_of_record(bundle: Path, asked: Path | None) -> Path:
    """Where the record goes: the file that was asked for, or a new one beside the bundle.

    Raises:
        ConfigError: there is no bundle, or the record would lie in it, overwrite something, or cannot be written.
    """
    require_folder(bundle)
    path = asked or bundle.resolve().with_name(f"{bundle.resolve().name}.verified.json")
    number_ = 1
    while asked is None and path.exists():
        number_ += 1
        path = path.with_name(f"{bundle.resolve().name}.verified.{number_}.json")
    if path.resolve().is_relative_to(bundle.resolve()):
        raise ConfigError(f"{path} lies in the bundle, which is never altered. Name another place with --record.")
    if path.exists():
        raise ConfigError(f"{path} exists, and a record is never overwritten. Name another file with --record.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.unlink()
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}. Name another file with --record.") from None
    return path

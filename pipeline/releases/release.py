"""A release: what a bundle, a run folder or a certificate says of one compressed network. Read, never measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from pipeline.certification.certificate import SCHEMA
from pipeline.releases.bundle import MANIFEST, check_bundle
from pipeline.run_folder import read_json
from targets.errors import ArtifactError, ConfigError
from targets.levels import Level


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Network(_Record):
    """One network of a certificate, as it was timed; the latency's interval is of those that were timed in turns."""

    runtime: str
    precision: str
    latency_s: float = Field(gt=0)
    latency_low_s: float | None = Field(None, gt=0)
    latency_high_s: float | None = Field(None, gt=0)

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """Of the latency, where a certificate tells it."""
        if self.latency_low_s is None or self.latency_high_s is None:
            return None
        return self.latency_low_s, self.latency_high_s


class CompressedNetwork(Network):
    """The network that ships; ``sparsity`` is the share of zeros over all units."""

    sparsity: float = Field(ge=0, le=1)


class Accuracy(_Record):
    """Scores on ``n`` test samples.

    Args:
        compressed_low: end of the compressed network's own interval, as ``compressed_high`` is; of any, where a
            certificate does not tell.
        ci_low: end of the interval of the paired difference compressed - dense, as ``ci_high`` is.
    """

    metric: str
    dense: float = Field(ge=0, le=1)
    compressed: float = Field(ge=0, le=1)
    compressed_low: float = 0.0
    compressed_high: float = 1.0
    difference: float
    ci_low: float
    ci_high: float
    confidence: float = Field(gt=0, lt=1)
    n: int = Field(gt=0)


class Deployment(_Record):
    """What a speedup holds for, beside the host."""

    runtime: str
    threads: int
    batch_size: int
    vendor: str = "any"
    precedence: bool | None = None


class CertifiedHost(_Record):
    """The host that was measured; hosts of one ``id`` take the same time for the same network."""

    id: str
    model: str
    vendor: str = ""


class FileBytes(_Record):
    """Bytes of model.onnx."""

    compressed_onnx: int = Field(ge=0)


class Deployed(_Record):
    """What one network costs in a process of its own; None is not measured."""

    p99_s: float | None = None
    peak_rss_bytes: int | None = None


class CertificateRecord(_Record):
    """The fields of a certificate that releases are judged by."""

    created: AwareDatetime | None = None
    status: Literal["certified", "missed", "inconclusive"]
    requested_speedup: float
    measured_speedup: float = Field(gt=0)
    ci_low: float = Field(gt=0)
    ci_high: float = Field(gt=0)
    confidence: float = Field(gt=0, lt=1)
    is_disturbed: bool
    baseline: Network
    compressed: CompressedNetwork
    best_dense: Network
    speedup_over_best_dense: float
    accuracy: Accuracy
    host: CertifiedHost
    target: Deployment
    proxy: bool
    licence_note: str
    versions: dict[str, str]
    file_bytes: FileBytes
    deployment: dict[str, Deployed] = {}
    ran_ahead: bool | None = None
    table_host_id: str | None = None

    @property
    def was_ahead(self) -> bool:
        """Whether it was measured ahead of other processes; certificates did not always say."""
        return bool(self.target.precedence) if self.ran_ahead is None else self.ran_ahead

    @property
    def deployed(self) -> Deployed:
        """What the compressed network costs."""
        return self.deployment.get("compressed", Deployed())


class _PlannedUnit(_Record):
    name: str
    level: Level


class _PlanRecord(_Record):
    units: list[_PlannedUnit]


@dataclass(frozen=True, slots=True)
class Release:
    """One compressed network.

    Args:
        name: the path as it was given.
        plan: unit → level in execution order, None where only a certificate was given.
        files: name in the bundle → SHA-256; empty without a bundle.
    """

    name: str
    certificate: CertificateRecord
    plan: Mapping[str, Level] | None
    files: Mapping[str, str]


def read_release(path: Path) -> Release:
    """What a bundle, a run folder or a certificate's file says; of a run folder with a bundle, the bundle counts.

    Raises:
        ConfigError: there is nothing of the kind.
        ArtifactError: a file is altered, broken or of a newer version.
    """
    if path.is_file():
        return Release(str(path), _certificate(path), None, {})
    for bundle in (path, path / "bundle"):
        if (bundle / MANIFEST).exists():
            return read_bundle(bundle, name=str(path))
    if (path / "certificate.json").exists():
        return Release(str(path), _certificate(path / "certificate.json"), _plan(path / "plan.json"), {})
    raise ConfigError(
        f"{path} is no bundle, no run folder with a certificate, and no certificate. "
        "`pipeline certify` and `pipeline report` make them."
    )


def is_unfinished(path: Path) -> bool:
    """Whether this is a run folder that has not come to a certificate."""
    return (path / "run.json").exists() and not any(
        (path / name).exists() for name in ("certificate.json", f"bundle/{MANIFEST}")
    )


def read_bundle(bundle: Path, *, name: str | None = None) -> Release:
    """What an unaltered bundle says.

    Raises:
        ConfigError: there is no such folder.
        ArtifactError: a file is altered, broken or of a newer version.
    """
    manifest = check_bundle(bundle)
    files = {file: entry["sha256"] for file, entry in manifest["files"].items()}
    return Release(name or str(bundle), _certificate(bundle / "certificate.json"), _plan(bundle / "plan.json"), files)


def _certificate(path: Path) -> CertificateRecord:
    data = read_json(path)
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise ArtifactError(
            f"{path} has schema {schema}, and this version reads {SCHEMA}: a newer version wrote it. "
            "Update spdy-edge where it is read."
        )
    return _parse(CertificateRecord, data, path)


def _plan(path: Path) -> dict[str, Level]:
    return {unit.name: unit.level for unit in _parse(_PlanRecord, read_json(path), path).units}


R = TypeVar("R", bound=_Record)


def _parse(kind: type[R], data: Any, path: Path) -> R:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ArtifactError(
            f"{path} is broken or of another kind: {place}: {first['msg']}. Run the pipeline again."
        ) from None

"""Reads what `pipeline verify` recorded, and whose signature stands beside it."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from pipeline.releases.release import CertifiedHost
from targets.errors import ArtifactError, ConfigError


class _Speedup(BaseModel):
    requested_speedup: float


class Verified(BaseModel):
    """The fields of a record that a release is let through by; without a speedup nothing was measured."""

    schema_: Literal[1] = Field(alias="schema")
    status: str
    exit_code: int
    manifest_sha256: str
    host: CertifiedHost
    speedup: _Speedup | None = None


def read_verified(path: Path, public_key: Path | None = None) -> Verified:
    """A record, which must be signed by ``public_key`` where one is given.

    Raises:
        ConfigError: there is no such record or key.
        ArtifactError: the file is no record of a verification that ran, or not as that key signed it.
    """
    from pipeline.provenance.signing import verify_file

    if not path.is_file():
        raise ConfigError(f"There is no record {path}. Give the file that `pipeline verify` wrote on the device.")
    if public_key:
        verify_file(path, public_key)
    try:
        return Verified.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"Cannot read the record {path}: {error.strerror}.") from None
    except ValidationError:
        raise ArtifactError(
            f"{path} is no record of `pipeline verify` with a host that this version reads. Verify again."
        ) from None

"""One unit's compressed weights in a file: safetensors, sparse, checked against their own hash."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from pipeline.compression.hessians import Matrix
from targets.errors import ArtifactError
from targets.files import write_atomically
from targets.levels import Level

SCHEMA = 1

Weight = NDArray[np.float32]
Tensors = dict[str, NDArray[Any]]
"""``<level>/values`` and ``<level>/mask`` of every level."""


@dataclass(frozen=True, slots=True)
class UnitHeader:
    """What a unit's file says about itself.

    Args:
        unit: its name.
        module: whose weight it is.
        key: hash of everything that its weights were made from.
        shape: of the weight.
        levels: keys of the levels, in the order of the errors.
        errors: `reconstruction_error` of each level.
        relative_errors: `relative_error` of each level.
    """

    unit: str
    module: str
    key: str
    shape: tuple[int, ...]
    levels: tuple[str, ...]
    errors: tuple[float, ...]
    relative_errors: tuple[float, ...]

    def to_json(self) -> str:
        """What `from_json` reads, always the same for the same header."""
        return json.dumps({"schema": SCHEMA} | asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "UnitHeader":
        """The header that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: it is of another form.
        """
        record: dict[str, Any] = json.loads(text)
        if record.pop("schema") != SCHEMA:
            raise ValueError("it was written by another version")
        fields: dict[str, Any] = {name: tuple(it) if isinstance(it, list) else it for name, it in record.items()}
        return cls(**fields)


def file_name(unit: str) -> str:
    """Name of a unit's file."""
    return f"{quote(unit, safe='')}.safetensors"


def level_bytes(size: int, level: Level) -> int:
    """About how many bytes ``size`` weights at a level take: non-zeros in float32, and a bit for every weight."""
    return round(4 * size * level.density) + (size + 7) // 8


def storable(weight: Matrix) -> Weight:
    """A weight as the file keeps it: float32, denormals flushed to zero because they slow a CPU down."""
    single = weight.astype(np.float32)
    single[np.abs(single) < np.finfo(np.float32).tiny] = 0
    return single


def encode_level(weight: Weight, level: Level) -> Tensors:
    """Non-zeros [k] and packed bits of a weight."""
    flat = weight.ravel()
    kept = flat != 0
    return {f"{level.key}/values": flat[kept], f"{level.key}/mask": np.packbits(kept)}


def write_unit(folder: Path, header: UnitHeader, tensors: Tensors) -> None:
    """Write a unit's file.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left of the attempt.
    """
    metadata = {"header": header.to_json(), "sha256": _sha256(header, tensors)}
    write_atomically(folder / file_name(header.unit), save(tensors, metadata))


class UnitFile:
    """A unit's file, mapped into memory; levels are decoded when they are asked for.

    Args:
        path: of the file.

    Attributes:
        header: what the file says about itself.
        sha256: of the header and all tensors.

    Raises:
        ArtifactError: the file is missing, broken or altered.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = _mapped(path)
            metadata: dict[str, str] = self._file.metadata()
            self.header = UnitHeader.from_json(metadata["header"])
            self.sha256 = metadata["sha256"]
            tensors = {name: self._file.get_tensor(name) for name in _tensor_names(self.header)}
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{path} is broken ({error}). Run `pipeline database` again") from error
        if _sha256(self.header, tensors) != self.sha256:
            raise ArtifactError(f"{path} was altered: its hash differs. Run `pipeline database` again")

    def weight(self, level: Level) -> Weight:
        """The weight [*shape] at a level.

        Raises:
            ArtifactError: the file has no such level.
        """
        if level.key not in self.header.levels:
            raise ArtifactError(f"{self.path} has no level {level.key}, only {', '.join(self.header.levels)}")
        size = int(np.prod(self.header.shape))
        kept = np.unpackbits(self._file.get_tensor(f"{level.key}/mask"), count=size).astype(bool)
        weight = np.zeros(size, np.float32)
        weight[kept] = self._file.get_tensor(f"{level.key}/values")
        return weight.reshape(self.header.shape)


def _mapped(path: Path) -> Any:
    """The file, mapped into memory; safetensors has no types for it."""
    return safe_open(path, framework="numpy")


def _tensor_names(header: UnitHeader) -> list[str]:
    return [f"{level}/{part}" for level in header.levels for part in ("mask", "values")]


def _sha256(header: UnitHeader, tensors: Tensors) -> str:
    """Hash of everything that the file says."""
    digest = hashlib.sha256(header.to_json().encode())
    for name in _tensor_names(header):
        digest.update(f"{name} {tensors[name].size}:".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()

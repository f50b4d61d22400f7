"""The runtimes that there are, and which of them work here."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from targets import environments
from targets.errors import ConfigError, RuntimeMissingError
from targets.host import isa_features
from targets.runtimes import deepsparse, onnxruntime, openvino
from targets.runtimes.base import Runtime
from targets.unknown import unknown_name

RUNTIMES: dict[str, Runtime] = {
    "deepsparse": deepsparse,
    "openvino": openvino,
    "onnxruntime": onnxruntime,
}

_LICENCE_NOTES = {
    "deepsparse": "community licence: evaluation in development and test, no production use; end of life June 2025",
    "openvino": "Apache 2.0: production use allowed",
    "onnxruntime": "MIT: production use allowed",
}


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """A runtime as it is installed here.

    Args:
        families: compression families that it can be faster on in principle; the probe says whether it is.
        interpreter: the Python that has it, None if it is not installed.
        version: of the runtime, None if it is not installed.
        licence_note: what its licence allows.
        precisions: of the arithmetic, those that this CPU computes natively, ``fp32`` first.
    """

    name: str
    families: tuple[str, ...]
    interpreter: Path | None
    version: str | None
    licence_note: str
    precisions: tuple[str, ...]


def describe_runtime(name: str) -> RuntimeInfo:
    """What is known of a runtime, installed or not.

    Raises:
        ConfigError: there is no such runtime.
    """
    if name not in RUNTIMES:
        raise unknown_name("runtime", name, RUNTIMES)
    return runtime_info(name, *_installation(name), isa_features())


def runtime_info(name: str, interpreter: Path | None, version: str | None, isa: Sequence[str]) -> RuntimeInfo:
    """A runtime as it is on a host with some instruction sets."""
    has_bf16 = any(feature in isa for feature in ("avx512_bf16", "amx_bf16"))
    precisions = ("fp32", "bf16") if name == "openvino" and has_bf16 else ("fp32",)
    return RuntimeInfo(name, RUNTIMES[name].FAMILIES, interpreter, version, _LICENCE_NOTES[name], precisions)


def installed_runtimes() -> list[RuntimeInfo]:
    """Every runtime that can be measured here, those that gain from sparsity first."""
    return [info for info in map(describe_runtime, RUNTIMES) if info.interpreter]


def get_runtime(name: str) -> RuntimeInfo:
    """A runtime that can be measured here.

    Raises:
        ConfigError: there is no such runtime.
        RuntimeMissingError: it is not installed.
    """
    info = describe_runtime(name)
    if info.interpreter is None:
        there = ", ".join(other.name for other in installed_runtimes()) or "none"
        raise RuntimeMissingError(
            f"The runtime {name} is not installed; installed: {there}. "
            f"Run `{_install_command(name)}`, or choose another one with --runtime."
        )
    return info


def isa_limit(runtime: str, isa: str) -> dict[str, str]:
    """The environment that keeps a runtime to an instruction set.

    Raises:
        ConfigError: it cannot be kept to that one.
    """
    limits = RUNTIMES[runtime].ISA_LIMITS
    if isa in limits:
        return limits[isa]
    if not limits:
        raise ConfigError(
            f"{runtime} cannot be kept to {isa} or any other instruction set: it takes what the CPU has, and has no "
            "setting for it. Verify the bundle on a device that has no more: pipeline verify BUNDLE --host ssh://…"
        )
    raise ConfigError(f"{runtime} cannot be kept to {isa}; it can be to {', '.join(limits)}.")


def _installation(name: str) -> tuple[Path | None, str | None]:
    if name in environments.MANAGED:
        return environments.installation(name) or (None, None)
    if importlib.util.find_spec(name) is None:
        return None, None
    return Path(sys.executable), metadata.version(name)


def _install_command(name: str) -> str:
    return f"pipeline runtimes install {name}" if name in environments.MANAGED else f"pip install {name}"

"""Targets: what a model is compressed for, as a preset or a user's TOML file with overrides."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from targets.devices.base import Device
from targets.devices.registry import LOCAL, open_device
from targets.errors import ConfigError
from targets.registry import RUNTIMES
from targets.unknown import unknown_name

_PRESETS = Path(__file__).with_name("presets")
_KEYS: dict[str, type] = {
    "description": str,
    "vendor": str,
    "runtime": str,
    "threads": int,
    "batch_size": int,
    "input_size": int,
    "host": str,
    "python": str,
    "precedence": bool,
}
_VENDORS = ("intel", "amd", "any")
_DEFAULTS: dict[str, Any] = {
    "description": "",
    "vendor": "any",
    "runtime": None,
    "threads": None,
    "batch_size": 64,
    "input_size": None,
    "host": "local",
    "python": None,
    "precedence": None,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device and how it is used.

    Args:
        name: of the preset, or of the file without its suffix.
        vendor: of the CPU: ``intel``, ``amd`` or ``any``.
        runtime: None until one is chosen.
        threads: that compute, one a physical core.
        batch_size: samples of one run.
        input_size: pixels a side, or tokens, of one sample; None for the model's usual size.
        host: ``local``, this host, or ``ssh://user@box:port``, where measurements happen then.
        python: the interpreter on a device that is reached over ssh, ``python3`` by default.
        precedence: what measures runs ahead of every other process there, which takes root; None: on this host, once
            others keep its cores busy, and where the system allows it.
    """

    name: str
    vendor: str
    runtime: str | None
    threads: int
    batch_size: int
    input_size: int | None = None
    host: str = "local"
    python: str | None = None
    precedence: bool | None = None

    @property
    def device(self) -> Device:
        """Where it is measured."""
        return open_device(self.host, self.python)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Preset:
    """A target that comes with this package."""

    name: str
    vendor: str
    batch_size: int
    description: str


def list_presets() -> list[Preset]:
    """The targets that can be asked for by name."""
    found = ((path.stem, _read_settings(path)) for path in sorted(_PRESETS.glob("*.toml")))
    return [Preset(name, read["vendor"], read["batch_size"], read["description"]) for name, read in found]


def load_target(
    name_or_path: str | Path,
    *,
    runtime: str | None = None,
    batch_size: int | None = None,
    threads: int | None = None,
    input_size: int | None = None,
    precedence: bool | None = None,
) -> Target:
    """The target of a preset or a TOML file.

    Args:
        name_or_path: a preset's name, or a file with any of the keys vendor, runtime, threads, batch_size,
            input_size, host, python, precedence and description.
        runtime: takes the place of the file's, as do the following.
        batch_size: samples of one run.
        threads: that compute; by default the physical cores that may be used there.
        input_size: pixels a side, or tokens, of one sample.
        precedence: what measures runs ahead of every other process.

    Raises:
        ConfigError: no such preset, file, key or runtime, or a value that cannot be.
        UnreachableError: the target's host does not answer.
    """
    path = _find(name_or_path)
    overrides = {
        "runtime": runtime,
        "batch_size": batch_size,
        "threads": threads,
        "input_size": input_size,
        "precedence": precedence,
    }
    given = {key: value for key, value in overrides.items() if value is not None}
    _check("The request", given)
    settings = _read_settings(path) | given
    return Target(
        name=path.stem,
        vendor=settings["vendor"],
        runtime=settings["runtime"],
        threads=_checked_threads(settings["threads"], open_device(settings["host"], settings["python"])),
        batch_size=settings["batch_size"],
        input_size=settings["input_size"],
        host=settings["host"],
        python=settings["python"],
        precedence=settings["precedence"],
    )


def _find(name_or_path: str | Path) -> Path:
    preset = _PRESETS / f"{name_or_path}.toml"
    if preset.parent == _PRESETS and preset.is_file():
        return preset
    path = Path(name_or_path)
    if path.is_file():
        return path
    presets = sorted(preset.stem for preset in _PRESETS.glob("*.toml"))
    if path.suffix == ".toml" or len(path.parts) != 1 or path.exists():
        raise ConfigError(f"The target {name_or_path} is not a file. Give a TOML file, or one of {', '.join(presets)}.")
    raise unknown_name("target (neither a preset nor a file)", str(name_or_path), presets)


def _read_settings(path: Path) -> dict[str, Any]:
    """Every key of a target's file, with defaults for those that it leaves out."""
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"The target {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # not TOML, or not even text
        raise ConfigError(f"The target {path} is not a TOML file: {error}.") from error
    for key in read:
        if key not in _KEYS:
            raise unknown_name(f"key in {path}", key, _KEYS)
    _check(str(path), read)
    return _DEFAULTS | read


def _check(source: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if type(value) is not _KEYS[key]:
            kind = {str: "a string", int: "a whole number", bool: "true or false"}[_KEYS[key]]
            raise ConfigError(f"{source} says {key} = {value!r}: it must be {kind}.")
        if type(value) is int and value < 1:
            raise ConfigError(f"{source} says {key} = {value}: it must be at least 1.")
    if "vendor" in settings and settings["vendor"] not in _VENDORS:
        raise unknown_name("vendor", settings["vendor"], _VENDORS)
    if "runtime" in settings and settings["runtime"] not in RUNTIMES:
        raise unknown_name("runtime", settings["runtime"], RUNTIMES)


def _checked_threads(threads: int | None, device: Device) -> int:
    available = device.cores()
    if threads is not None and threads > available:
        where = "this process" if device.name == LOCAL else f"a process on {device.name}"
        raise ConfigError(
            f"{threads} threads were asked for, but {where} may use {available} physical "
            f"core{'s' * (available > 1)} (CPU affinity and cgroup quota count). Ask for at most {available}."
        )
    return threads or available

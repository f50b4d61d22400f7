"""This host: which CPU it is, and how much of it this process may use."""

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from targets.target import Target

ROOT = Path("/")

_ISA = ("sse4_2", "avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16")
_VENDORS = {"GenuineIntel": "intel", "AuthenticAMD": "amd"}
_GOVERNOR = "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
_PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "torch")


@dataclass(frozen=True, slots=True)
class HostFingerprint:
    """What a latency was measured on.

    Args:
        vendor: ``intel``, ``amd``, or another maker's name in lower case.
        uarch: microarchitecture; of a virtual machine that hides it, the feature level, such as ``x86_64_v4``.
        isa: the instruction sets that runtimes choose their kernels by.
        physical_cores: of the host.
        usable_cores: physical cores that this process may use.
        caches: name, such as ``L1d`` → bytes of one instance.
        memory_bytes: installed memory, None where it is not told.
        governor: frequency governor, None where it cannot be read.
        versions: package → version.
    """

    vendor: str
    model: str
    uarch: str
    isa: tuple[str, ...]
    physical_cores: int
    usable_cores: int
    caches: dict[str, int]
    memory_bytes: int | None
    os: str
    kernel: str
    governor: str | None
    versions: dict[str, str]

    @property
    def id(self) -> str:
        """16 hex digits that are equal where the same runtime, settings and model take the same time.

        They cover the CPU. Memory, system, the frequency governor and the cores left to this process may differ; the
        runtime's version and the target's threads are facts of their own, to be compared beside the id.
        """
        names = ("vendor", "model", "uarch", "isa", "physical_cores", "caches")
        same = json.dumps({name: getattr(self, name) for name in names}, sort_keys=True)
        return hashlib.sha256(same.encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file, with the id for people to compare."""
        return {"id": self.id} | asdict(self)


def collect_host() -> HostFingerprint:
    """The fingerprint of this host."""
    from archspec import cpu

    detected = cpu.detect.detected_info()
    cores = available_cores()
    return HostFingerprint(
        vendor=_VENDORS.get(detected.vendor, detected.vendor.lower()),
        model=cpu.brand_string() or platform.processor() or "unknown",
        uarch=cpu.host().name,
        isa=isa_features(),
        physical_cores=psutil.cpu_count(logical=False) or cores,
        usable_cores=cores,
        caches=_caches(ROOT),
        memory_bytes=psutil.virtual_memory().total,
        os=_os_name(ROOT),
        kernel=platform.release(),
        governor=_read(ROOT / _GOVERNOR),
        versions={"python": platform.python_version()} | dict(_installed_versions()),
    )


def described_host(facts: Mapping[str, Any], root: Path) -> HostFingerprint:
    """The fingerprint of a device from what it said of itself: the same as its own `collect_host` would give.

    Args:
        facts: what `targets.describe` printed there.
        root: a folder that holds the system files among the facts.
    """
    cpu, cpus = facts["cpu"], facts["cpus"]
    everything = [int(p.parts[-3][len("cpu") :]) for p in root.glob("sys/devices/system/cpu/cpu*/topology/*_list")]
    cores = available_cores(root, cpus)
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "")
    return HostFingerprint(
        vendor=_VENDORS.get(cpu["vendor"], cpu["vendor"].lower()),
        model=cpu["brand"],
        uarch=cpu["uarch"],
        isa=_relevant_isa(cpu["features"]),
        physical_cores=len(_cores(root, set(everything))) or cores,
        usable_cores=cores,
        caches=_caches(root),
        memory_bytes=1024 * int(memory.group(1)) if memory else None,
        os=_os_name(root),
        kernel=facts["kernel"],
        governor=_read(root / _GOVERNOR),
        versions={"python": facts["python"]} | {name: facts["packages"][name] for name in facts["packages"]},
    )


def is_proxy(target: "Target", host: HostFingerprint) -> bool:
    """Whether latencies measured on ``host`` only stand in for those on the CPUs that ``target`` names."""
    return target.vendor not in ("any", host.vendor)


@cache
def isa_features() -> tuple[str, ...]:
    """The instruction sets of this CPU that runtimes choose their kernels by."""
    from archspec.cpu.detect import detected_info

    return _relevant_isa(detected_info().features)


def _relevant_isa(features: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in _ISA if name in features) + tuple(sorted(f for f in features if f.startswith("amx_")))


def available_cores(root: Path = ROOT, cpus: Collection[int] | None = None) -> int:
    """Physical cores that this process may use, at least 1: its affinity and its cgroups' CPU quota count.

    Args:
        root: where /proc and /sys are.
        cpus: logical CPUs that the process may run on; by default its affinity.
    """
    return max(1, min(len(_cores(root, cpus)), math.floor(min(_cpu_quota(root), 1e6))))


def pinned_cpus(threads: int, root: Path = ROOT, cpus: Collection[int] | None = None) -> list[int]:
    """Logical CPUs to pin ``threads`` threads to, each on a core of its own; empty where the system cannot pin."""
    if cpus is None and not hasattr(os, "sched_setaffinity"):
        return []
    return sorted(min(core) for core in _cores(root, cpus))[:threads]


def _cores(root: Path, cpus: Collection[int] | None) -> list[set[int]]:
    """Usable logical CPUs, those that share a physical core together."""
    if cpus is None:
        cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(psutil.cpu_count() or 1)
    cores: dict[str, set[int]] = {}
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list") or str(cpu)
        cores.setdefault(siblings, set()).add(cpu)
    # Systems without that folder do not tell which CPUs share a core, only how many cores there are.
    told = (root / "sys/devices/system/cpu").is_dir()
    return list(cores.values())[: None if told else psutil.cpu_count(logical=False)]


def _cpu_quota(root: Path) -> float:
    """CPUs' worth of time that the cgroups of this process grant it, inf where they do not limit it."""
    quota = math.inf
    for group in _cpu_groups(root):
        with suppress(OSError, ValueError):
            if (group / "cpu.max").exists():
                limit, period = (group / "cpu.max").read_text().split()
            else:
                limit, period = (group / "cpu.cfs_quota_us").read_text(), (group / "cpu.cfs_period_us").read_text()
            # "max" (version 2) or -1 (version 1) is no limit.
            if limit != "max" and int(limit) > 0:
                quota = min(quota, int(limit) / int(period))
    return quota


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of the cgroups, version 1 or 2, that bound the CPU time of this process, with their ancestors."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts = ["", "unified"]
        elif "cpu" in controllers.split(","):
            mounts = [controllers, "cpu"]
        else:
            continue
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for mount in mounts:
            for depth in range(len(parts) + 1):
                yield root.joinpath("sys/fs/cgroup", mount, *parts[:depth])


def _caches(root: Path) -> dict[str, int]:
    sizes = {}
    for index in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = (_read(index / name) for name in ("level", "type", "size"))
        if level and kind and size and size.endswith("K"):
            suffix = {"Data": "d", "Instruction": "i"}.get(kind, "")
            sizes[f"L{level}{suffix}"] = int(size[:-1]) * 1024
    return sizes


def _os_name(root: Path) -> str:
    named = re.search(r'^PRETTY_NAME="?([^"\n]*)', _read(root / "etc/os-release") or "", re.MULTILINE)
    return named.group(1) if named else platform.system()


def _installed_versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            yield package, metadata.version(package)


def _read(path: Path) -> str | None:
    """Content of a small system file, None where it is absent."""
    try:
        return path.read_text().strip()
    except OSError:
        return None

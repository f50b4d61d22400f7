"""What a device says of itself: a program that is sent there, with archspec beside it in one zip file.

It reads one job (JSON: the packages whose versions are wanted) from standard input and prints one JSON object. It
imports the standard library and archspec alone, in the syntax of Python 3.8; what the facts mean is worked out where
they are wanted (targets/host.py).
"""

from __future__ import annotations

import glob
import json
import os
import platform
import sys
import tempfile
import zipfile
from importlib import metadata
from typing import Any, Dict, Sequence

FILES = (
    "etc/os-release",
    "proc/meminfo",
    "proc/self/cgroup",
    "sys/devices/system/cpu/cpu*/topology/core_cpus_list",
    "sys/devices/system/cpu/cpu*/topology/thread_siblings_list",
    "sys/devices/system/cpu/cpu0/cache/index*/*",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
    "sys/fs/cgroup/**/cpu.max",
    "sys/fs/cgroup/**/cpu.cfs_*_us",
)


def main() -> None:
    """Print what this device is."""
    job = json.load(sys.stdin)
    print(json.dumps({"cpu": read_cpu(), "files": read_files(), **read_python(job["packages"])}))


def read_cpu() -> Dict[str, Any]:
    """What archspec finds out; its tables cannot be read inside a zip file, so that they are unpacked first."""
    with tempfile.TemporaryDirectory() as folder:
        if zipfile.is_zipfile(sys.argv[0]):
            with zipfile.ZipFile(sys.argv[0]) as archive:
                archive.extractall(folder, [n for n in archive.namelist() if n.startswith("archspec/json/cpu/")])
            os.environ["ARCHSPEC_CPU_DIR"] = os.path.join(folder, "archspec", "json", "cpu")
        from archspec import cpu

        detected = cpu.detect.detected_info()
        brand = cpu.brand_string() or platform.processor() or "unknown"
        name, features = cpu.host().name, sorted(detected.features)
        return {"vendor": detected.vendor, "brand": brand, "uarch": name, "features": features}


def read_files() -> Dict[str, str]:
    """Path below / → content of small system files."""
    found = {}
    for pattern in FILES:
        for path in glob.glob("/" + pattern, recursive=True):
            try:
                with open(path) as file:
                    found[path[1:]] = file.read()
            except (OSError, ValueError):
                continue
    return found


def read_python(packages: Sequence[str]) -> Dict[str, Any]:
    """This interpreter, the packages that it has, and the CPUs that it may use."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return {
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "packages": versions,
        "cpus": cpus,
        "kernel": platform.release(),
        "machine": "%s %s" % (platform.system(), platform.machine()),
    }


if __name__ == "__main__":
    main()

"""What the machine did while something was timed: throttling, stolen time, others' work, frequency, energy.

Part of the worker: standard library only, in the syntax of Python 3.8. What a system does not tell is absent.
"""

from __future__ import annotations

import glob
import os
import resource
import sys
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

State = Dict[str, Any]

BUSY, STOLEN = (1, 2, 3, 6, 7), 8
"""Columns of /proc/stat: user, nice, system, interrupts; what the hypervisor gave to others while a CPU had work."""


def read_state(cpus: Sequence[int], root: str = "/", helpers: Sequence[int] = ()) -> State:
    """Counters of now, as far as they can be read.

    Args:
        cpus: the logical CPUs that count; all of them if empty.
        root: where /proc and /sys are.
        helpers: processes that work for this one.
    """
    state: State = {
        **_cgroup_throttling(root),
        "stolen_s": _ticks_s(root, cpus, (STOLEN,)),
        "work": _work(root, _with_siblings(root, cpus), helpers),
        "hot_cpus": _total(_cpu_files(root, cpus, "thermal_throttle/core_throttle_count")),
        "frequency_hz": _mean_hz(_cpu_files(root, cpus, "cpufreq/scaling_cur_freq")),
        "highest_hz": _mean_hz(_cpu_files(root, cpus, "cpufreq/cpuinfo_max_freq")),
        "energy_uj": _energy_uj(root),
    }
    return {name: value for name, value in state.items() if value is not None}


def difference(before: State, after: State) -> State:
    """What happened between two states: differences of counters, the energy in joules, the clock and its highest."""
    found: State = {
        name: after[name] - before[name]
        for name in ("throttled_periods", "throttled_s", "stolen_s", "hot_cpus")
        if name in before and name in after
    }
    if "work" in before and "work" in after:
        busy_s, own_s, elapsed_s = (end - start for start, end in zip(before["work"], after["work"]))
        found["others_cores"] = max(0.0, busy_s - own_s) / elapsed_s
    found["is_ahead"] = os.getpriority(os.PRIO_PROCESS, 0) < 0
    found.update({name: after[name] for name in ("frequency_hz", "highest_hz") if name in after})
    energy_j = _energy_between(before.get("energy_uj"), after.get("energy_uj"))
    return found if energy_j is None else {**found, "energy_j": energy_j}


def _energy_between(before: Any, after: Any) -> Optional[float]:
    """Joules of all packages; a counter that started again from zero has its range added."""
    if not before or not after or before.keys() != after.keys():
        return None
    total_uj = 0
    for package, (end_uj, range_uj) in after.items():
        spent_uj = end_uj - before[package][0]
        total_uj += spent_uj if spent_uj >= 0 else spent_uj + range_uj
    return total_uj * 1e-6 or None  # a counter that stands still tells nothing


def _cgroup_throttling(root: str) -> State:
    """Periods and seconds in which a CPU quota stopped this process's cgroups, version 2 or 1."""
    periods, seconds, told = 0, 0.0, False
    for folder in _cgroup_folders(root):
        lines = (_read(os.path.join(folder, "cpu.stat")) or "").splitlines()
        stat = dict(line.split() for line in lines if len(line.split()) == 2)
        if "nr_throttled" in stat:
            told = True
            periods += int(stat["nr_throttled"])
            seconds += int(stat.get("throttled_usec", 0)) * 1e-6 + int(stat.get("throttled_time", 0)) * 1e-9
    return {"throttled_periods": periods, "throttled_s": seconds} if told else {}


def _cgroup_folders(root: str) -> List[str]:
    folders = []
    for line in (_read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in ("", "unified") if not controllers else (controllers, "cpu"):
            for depth in range(len(parts) + 1):
                folder = os.path.join(root, "sys/fs/cgroup", mount, *parts[:depth])
                if folder not in folders:
                    folders.append(folder)
    return folders


def _work(root: str, cpus: Sequence[int], helpers: Sequence[int]) -> Optional[Tuple[float, float, float]]:
    """Seconds that the CPUs were busy for anyone in this system, and for this process, and what time it is."""
    busy_s = _ticks_s(root, cpus, BUSY)
    own_s = time.process_time() + sum(_process_s(root, pid) for pid in helpers)
    return None if busy_s is None else (busy_s, own_s, time.perf_counter())


def _with_siblings(root: str, cpus: Sequence[int]) -> List[int]:
    """The CPUs, and those that share a core with one of them: what computes there takes from it."""
    found = set(cpus)
    for cpu in cpus:
        topology = os.path.join(root, "sys/devices/system/cpu/cpu" + str(cpu), "topology/thread_siblings_list")
        for part in (_read(topology) or str(cpu)).split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    return sorted(found)


def _process_s(root: str, pid: int) -> float:
    """Seconds of CPU time of another process; none where it has ended."""
    stat = _read(os.path.join(root, "proc", str(pid), "stat")) or ""
    fields = stat.rpartition(")")[2].split()  # the name before may hold spaces
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _ticks_s(root: str, cpus: Sequence[int], columns: Sequence[int]) -> Optional[float]:
    """Seconds that the CPUs spent as /proc/stat's columns say."""
    names = {"cpu" + str(cpu) for cpu in cpus} or {"cpu"}
    rows = [line.split() for line in (_read(os.path.join(root, "proc/stat")) or "").splitlines()]
    rows = [row for row in rows if row and row[0] in names and len(row) > STOLEN]
    return sum(int(row[column]) for row in rows for column in columns) / os.sysconf("SC_CLK_TCK") if rows else None


def _energy_uj(root: str) -> Optional[Dict[str, List[int]]]:
    """Package → counter and its range in microjoules, as RAPL tells them to those who may read them."""
    found = {}
    for folder in glob.glob(os.path.join(root, "sys/class/powercap/*-rapl:*")):
        name = os.path.basename(folder)
        energy, most, kind = (
            _read(os.path.join(folder, file)) for file in ("energy_uj", "max_energy_range_uj", "name")
        )
        if (kind or "").startswith("package") and energy and most:  # not its parts, nor the platform with all of it
            found[name] = [int(energy), int(most)]
    return found or None


def _cpu_files(root: str, cpus: Sequence[int], name: str) -> List[int]:
    which = ["cpu" + str(cpu) for cpu in cpus] or ["cpu[0-9]*"]
    paths = [path for cpu in which for path in glob.glob(os.path.join(root, "sys/devices/system/cpu", cpu, name))]
    return [int(text) for text in map(_read, paths) if text]


def _total(values: List[int]) -> Optional[int]:
    return sum(values) if values else None


def _mean_hz(values_khz: List[int]) -> Optional[float]:
    return 1000.0 * sum(values_khz) / len(values_khz) if values_khz else None


def _read(path: str) -> Optional[str]:
    """Content of a small system file; None where it is absent or not for us, as RAPL's often is."""
    try:
        with open(path) as file:
            return file.read().strip() or None
    except (OSError, ValueError):
        return None


def peak_rss_bytes() -> int:
    """Most memory that this process held; Linux's rusage counts what its parent held before it started this one."""
    try:
        with open("/proc/self/status") as status:
            return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB

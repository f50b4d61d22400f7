import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from targets.host import HostFingerprint, available_cores, collect_host, is_proxy, isa_features, pinned_cpus
from targets.target import Target

HOST = HostFingerprint(
    vendor="intel",
    model="Intel(R) Xeon(R) Gold 6354",
    uarch="icelake",
    isa=("avx2", "avx512f"),
    physical_cores=18,
    usable_cores=4,
    caches={"L1d": 49152, "L2": 1310720},
    memory_bytes=64 << 30,
    os="Debian GNU/Linux 12 (bookworm)",
    kernel="6.1.0",
    governor="performance",
    versions={"openvino": "2026.4.1"},
)
linux_only = pytest.mark.skipif(platform.system() != "Linux", reason="affinity and /proc are Linux's")


def fake_system(root: Path, siblings: list[str], cgroup: str = "", limits: dict[str, str] | None = None) -> Path:
    """A root folder with CPUs that share cores as ``siblings`` says, and the cgroup files of ``limits``."""
    for cpu, names in enumerate(siblings):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "core_cpus_list").write_text(names + "\n")
    for name, content in ({"proc/self/cgroup": cgroup} | (limits or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return root


SMT = ["0,4", "1,5", "2,6", "3,7"] * 2


@pytest.mark.parametrize(
    ("cpus", "cores"), [(range(8), 4), (range(4), 4), ({0, 4}, 1), ({0, 1, 4}, 2), ({6}, 1), ({2, 3, 6, 7}, 2)]
)
def test_two_threads_of_a_core_count_once(tmp_path: Path, cpus: set[int], cores: int) -> None:
    assert available_cores(fake_system(tmp_path, SMT), cpus) == cores


CPU_V1 = "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("cgroup", "limits", "cores"),
    [
        ("0::/", {}, 4),
        ("0::/", {"sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        ("0::/", {"sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "290000 100000"}, 2),
        ("0::/", {"sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
        ("0::/", {"sys/fs/cgroup/cpu.max": "12800000 100000"}, 4),
        ("0::/a/b", {"sys/fs/cgroup/a/b/cpu.max": "max 100000", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", {"sys/fs/cgroup/a/b/cpu.max": "100000 50000", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 2),
        ("0::/../../elsewhere", {"sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ("4:cpu,cpuacct:/", {f"{CPU_V1}/cpu.cfs_quota_us": "-1", f"{CPU_V1}/cpu.cfs_period_us": "100000"}, 4),
        ("4:cpu,cpuacct:/", {f"{CPU_V1}/cpu.cfs_quota_us": "200000", f"{CPU_V1}/cpu.cfs_period_us": "100000"}, 2),
        # In a container the path is the host's, and the mount shows the container's own group as its root.
        (
            "4:cpu,cpuacct:/docker/1f\n0::/",
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("5:cpuset:/", {"sys/fs/cgroup/cpuset/cpu.max": "100000 100000"}, 4),
        ("0::/", {"sys/fs/cgroup/cpu.max": "nonsense"}, 4),
    ],
)
def test_cgroup_quotas_bound_the_cores(tmp_path: Path, cgroup: str, limits: dict[str, str], cores: int) -> None:
    assert available_cores(fake_system(tmp_path, SMT, cgroup, limits), range(8)) == cores


@linux_only
def test_the_affinity_of_the_process_counts() -> None:
    cpu = max(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, [{cpu}])\n"
        "from targets.host import available_cores, pinned_cpus\n"
        "print(available_cores(), pinned_cpus(5))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split(maxsplit=1) == ["1", f"[{cpu}]\n"]


@linux_only
def test_threads_are_pinned_to_different_usable_cores() -> None:
    cores = available_cores()
    pinned = pinned_cpus(cores)
    assert len(set(pinned)) == cores
    assert set(pinned) <= os.sched_getaffinity(0)
    assert pinned_cpus(1) == pinned[:1]


def test_the_id_is_the_same_on_every_day_and_machine() -> None:
    assert HOST.id == "20209c4a4fffe2db"


@pytest.mark.parametrize(
    "change",
    [
        {"usable_cores": 2},
        {"memory_bytes": 1 << 30},
        {"kernel": "6.2"},
        {"os": "Fedora"},
        {"versions": {}},
        {"governor": "powersave"},
        {"governor": None},
    ],
)
def test_what_leaves_latencies_comparable_leaves_the_id(change: dict[str, Any]) -> None:
    assert replace(HOST, **change).id == HOST.id


@pytest.mark.parametrize(
    "change",
    [
        {"vendor": "amd"},
        {"model": "another"},
        {"uarch": "cascadelake"},
        {"isa": ("avx2",)},
        {"physical_cores": 16},
        {"caches": {"L1d": 32768, "L2": 1310720}},
    ],
)
def test_what_changes_latencies_changes_the_id(change: dict[str, Any]) -> None:
    assert replace(HOST, **change).id != HOST.id


def test_this_host_is_described_and_recognised_again() -> None:
    host = collect_host()
    assert host.id == collect_host().id
    assert json.loads(json.dumps(host.to_json()))["id"] == host.id
    assert 1 <= host.usable_cores <= host.physical_cores
    assert host.memory_bytes > 1 << 28
    assert {"python", "numpy", "onnxruntime", "openvino"} <= set(host.versions)
    assert platform.node() not in host.to_json().values()


@linux_only
def test_vendor_and_instruction_sets_are_those_of_the_kernel() -> None:
    facts = dict(line.split(":", 1) for line in reversed(Path("/proc/cpuinfo").read_text().splitlines()) if ":" in line)
    said = {key.strip(): value.strip() for key, value in facts.items()}
    flags = set(said.get("flags", "").split())
    assert set(isa_features()) <= flags
    assert ("avx512f" in isa_features()) == ("avx512f" in flags)
    if said.get("vendor_id") in ("GenuineIntel", "AuthenticAMD"):
        assert collect_host().vendor == {"GenuineIntel": "intel", "AuthenticAMD": "amd"}[said["vendor_id"]]


@pytest.mark.parametrize(
    ("wanted", "proxy"), [("intel", False), ("amd", True), ("any", False)], ids=["same", "other", "any"]
)
def test_another_vendors_host_is_a_proxy(wanted: str, proxy: bool) -> None:
    target = Target(name="t", vendor=wanted, runtime=None, threads=1, batch_size=1)
    assert is_proxy(target, HOST) is proxy

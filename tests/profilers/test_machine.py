"""What a machine tells of itself, from system files as they are found, and silence where it tells nothing."""

from pathlib import Path

import pytest

from profilers.machine import difference, read_state

pytestmark = pytest.mark.timed


def write(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return str(root)


def machine(root: Path, *, periods: int, stolen: int, energy: int) -> str:
    return write(
        root,
        {
            "proc/self/cgroup": "0::/job/one\n",
            "sys/fs/cgroup/job/cpu.stat": f"usage_usec 5\nnr_throttled {periods}\nthrottled_usec {periods * 1000}\n",
            "proc/stat": f"cpu  1 0 1 1 0 0 0 99 0 0\ncpu0 1 0 1 1 0 0 0 {stolen} 0 0\ncpu1 1 0 1 1 0 0 0 50 0 0\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
            "sys/class/powercap/intel-rapl:0/energy_uj": f"{energy}\n",
            "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "1000000\n",
            "sys/class/powercap/intel-rapl:0/name": "package-0\n",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": "7\n",
            "sys/class/powercap/intel-rapl:0:0/max_energy_range_uj": "9\n",
            "sys/class/powercap/intel-rapl:0:0/name": "core\n",
            "sys/class/powercap/intel-rapl:1/energy_uj": f"{2 * energy}\n",
            "sys/class/powercap/intel-rapl:1/max_energy_range_uj": "1000000\n",
            "sys/class/powercap/intel-rapl:1/name": "psys\n",
        },
    )


def test_what_happened_meanwhile_is_told_and_a_counter_that_wrapped_is_put_right(tmp_path: Path) -> None:
    before = read_state([0], machine(tmp_path, periods=2, stolen=100, energy=900_000))
    after = read_state([0], machine(tmp_path, periods=5, stolen=300, energy=100_000))
    told = difference(before, after)
    assert told.pop("others_cores") == 0  # nobody was busy on that processor, this process on none that is counted
    assert told.pop("is_ahead") is False
    clocks = {"frequency_hz": 2e9, "highest_hz": 3.5e9}
    assert told == pytest.approx(
        {"throttled_periods": 3, "throttled_s": 0.003, "stolen_s": 2.0, "energy_j": 0.2} | clocks
    )


def test_others_work_is_what_the_processors_did_beside_this_process() -> None:
    before, after = {"work": (100.0, 7.0, 50.0)}, {"work": (107.0, 11.0, 54.0)}
    assert difference(before, after)["others_cores"] == pytest.approx((7 - 4) / 4)


def test_what_cannot_be_read_is_absent(tmp_path: Path) -> None:
    assert read_state([0], str(tmp_path)) == {}
    assert difference({}, {}) == {"is_ahead": False}
    assert "energy_j" not in difference({"energy_uj": {"a": [1, 9]}}, {"energy_uj": {"b": [2, 9]}})
    assert "energy_j" not in difference({"energy_uj": {"a": [1, 9]}}, {"energy_uj": {"a": [1, 9]}}), "it stands still"


def test_version_1_groups_count_in_nanoseconds(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "3:cpu,cpuacct:/a\n2:memory:/b\n",
        "sys/fs/cgroup/cpu/a/cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_time 5000000\n",
    }
    state = read_state([], write(tmp_path, files))
    assert state["throttled_periods"] == 4
    assert state["throttled_s"] == pytest.approx(0.005)


def test_a_helpers_work_is_this_process_s_own(tmp_path: Path) -> None:
    stat = {"proc/stat": "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 900 0 0 0 0 0 0 0 0 0\n"}
    root = write(tmp_path, {**stat, "proc/7/stat": "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0\n"})
    alone, helped = (read_state([0], root, helpers)["work"][1] for helpers in ((), (7,)))
    assert helped - alone == pytest.approx(3.0, abs=0.5)


def test_what_computes_on_the_other_thread_of_a_core_counts(tmp_path: Path) -> None:
    stat = "cpu  0 0 0 0 0 0 0 0 0 0\n" + "".join(f"cpu{n} {100 * n} 0 0 0 0 0 0 0 0 0\n" for n in range(6))
    siblings = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    root = write(tmp_path, {"proc/stat": stat, siblings.format(1): "1,4\n", siblings.format(2): "2-3\n"})
    for cpus, busy_s in (([1], 5.0), ([2], 5.0), ([1, 2], 10.0), ([5], 5.0)):
        assert read_state(cpus, root)["work"][0] == busy_s

"""Real measurements in real worker processes, on onnxruntime, which is always there."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from profilers import worker_process
from profilers.machine import difference, read_state
from profilers.measure import Bench, Candidate, Effort, Measurement
from profilers.precedence import BUSY, Precedence
from profilers.together import MOST_TOGETHER, measure_together
from profilers.waiting import waited_s
from profilers.worker_process import pack_worker
from targets.errors import ConfigError, RuntimeMissingError
from targets.host import pinned_cpus
from targets.registry import RuntimeInfo, get_runtime
from targets.target import Target

pytestmark = pytest.mark.timed

QUICK = Effort(warmups=1, rounds=6, seconds=5.0, timeout_s=60)


def write_matmul(path: Path, width: int, layers: int) -> Path:
    rng = np.random.default_rng(0)
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(layers)]
    weights = [
        numpy_helper.from_array((rng.standard_normal((width, width)) / width).astype(np.float32), f"w{i}")
        for i in range(layers)
    ]
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [4, width]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def dense(folder: Path) -> Candidate:
    return Candidate("dense", write_matmul(folder / "dense.onnx", 512, 12))


@pytest.fixture(scope="module")
def small(folder: Path) -> Candidate:
    return Candidate("small", write_matmul(folder / "small.onnx", 512, 2))


@pytest.fixture(scope="module")
def broken(folder: Path) -> Candidate:
    path = folder / "broken.onnx"
    path.write_bytes(b"not a model")
    return Candidate("broken", path)


@pytest.fixture
def bench() -> Bench:
    target = Target(name="test", vendor="any", runtime="onnxruntime", threads=1, batch_size=4)
    return Bench(get_runtime("onnxruntime"), target, effort=QUICK)


def test_a_worker_is_not_charged_for_the_memory_of_who_started_it(bench: Bench, small: Candidate) -> None:
    held = np.ones(600 * 2**20 // 8)
    assert 2**24 < bench.alone(small, seconds=0.1).peak_rss_bytes < 400 * 2**20 < held.nbytes


def test_workers_run_on_the_processors_that_they_were_given(bench: Bench, dense: Candidate, small: Candidate) -> None:
    seen: list[list[int]] = []

    def look(_: object) -> None:
        seen.extend(child.cpu_affinity() for child in psutil.Process().children())

    bench.measure(dense, [[small]] * 2, on_group=look)
    assert bench.device.pinned_cpus(1) in seen


def test_a_network_with_a_sixth_of_the_work_is_faster_and_every_sample_is_kept(
    bench: Bench, dense: Candidate, small: Candidate
) -> None:
    ((measured,),) = bench.measure(dense, [[small]])
    assert measured.error is None
    assert len(measured.samples_s) == len(measured.reference_s)
    assert len(measured.samples_s) >= QUICK.rounds
    assert measured.speedup > 1.5
    assert measured.compile_s is not None
    assert measured.compile_s > 0


def test_members_of_a_group_share_their_rounds(bench: Bench, dense: Candidate, small: Candidate) -> None:
    ((compressed, again),) = bench.measure(dense, [[small, dense]])
    assert compressed.reference_s == again.reference_s


def test_a_model_that_does_not_load_is_data_and_the_rest_is_measured(
    bench: Bench, dense: Candidate, small: Candidate, broken: Candidate
) -> None:
    heard: list[list[Measurement]] = []
    results = bench.measure(dense, [[small], [broken], [small]], on_group=heard.append)
    assert [group[0].error is None for group in results] == [True, False, True]
    assert heard == results


def test_a_reference_that_does_not_load_is_an_error_that_names_it(
    bench: Bench, small: Candidate, broken: Candidate
) -> None:
    with pytest.raises(RuntimeMissingError, match="broken"):
        bench.measure(broken, [[small]])


def test_a_worker_that_hangs_is_killed_and_reported(bench: Bench, dense: Candidate, small: Candidate) -> None:
    hopeless = Effort(warmups=1, rounds=10_000, seconds=1e9, timeout_s=3)
    ((measured,),) = bench.measure(dense, [[small]], effort=hopeless)
    assert measured.error is not None
    assert "3 s" in measured.error


def test_a_crash_of_the_engine_costs_one_group(
    folder: Path, dense: Candidate, small: Candidate, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that dies on one of the models, as engines do: by a signal, without a word of Python."""
    runtime = folder / "runtimes"
    runtime.mkdir(exist_ok=True)
    source = Path(sys.modules["targets.runtimes"].__file__ or "").parent
    (runtime / "__init__.py").touch()
    shutil.copy(source / "onnx_graph.py", runtime)
    (runtime / "onnxruntime.py").write_text(
        (source / "onnxruntime.py").read_text()
        + "\n_real = compile\n"
        + "def compile(model_path, *args, **kwargs):\n"
        + "    if 'crash' in model_path:\n        os.abort()\n"
        + "    return _real(model_path, *args, **kwargs)\n"
        + "import os\n"
    )
    monkeypatch.setattr("profilers.worker_process.targets.runtimes.__file__", str(runtime / "__init__.py"))
    crash = Candidate("crash", write_matmul(folder / "crash.onnx", 64, 1))
    results = bench.measure(dense, [[small], [crash], [small]])
    assert [group[0].error is None for group in results] == [True, False, True]
    assert "-6" in (results[1][0].error or "")


def test_inference_gives_every_row_once_whatever_the_batch_size(bench: Bench, small: Candidate) -> None:
    inputs = np.random.default_rng(0).standard_normal((10, 512)).astype(np.float32)
    weights = [numpy_helper.to_array(w) for w in onnx.load(str(small.path)).graph.initializer]
    expected = inputs @ weights[0] @ weights[1]
    np.testing.assert_allclose(bench.infer(small, {"x0": inputs}), expected, rtol=1e-3, atol=1e-5)


def test_counters_of_the_runtime_add_up_to_about_the_latency(bench: Bench, dense: Candidate) -> None:
    times = bench.layer_times(dense)
    assert times.nodes_s is not None
    assert times.operations_s is not None
    assert len(times.nodes_s) >= 12
    assert 0.3 < sum(times.nodes_s.values()) / times.latency_s < 3
    assert sum(times.operations_s.values()) == pytest.approx(sum(times.nodes_s.values()))
    assert "MatMul" in "".join(times.operations_s)


def test_a_model_alone_tells_what_its_deployment_will_cost(bench: Bench, small: Candidate) -> None:
    found = bench.alone(small, seconds=0.2)
    assert len(found.samples_s) >= 5
    assert found.compile_s > 0
    assert found.first_inference_s > 0
    assert found.peak_rss_bytes > 1 << 24
    assert found.machine.get("energy_j", 1) > 0  # absent where RAPL cannot be read, never zero


def test_an_interpreter_that_is_gone_is_an_error(dense: Candidate, small: Candidate, bench: Bench) -> None:
    info = RuntimeInfo("onnxruntime", (), Path(sys.executable), "0", "", ("fp32",))
    other = Bench(info, bench.target, inputs=Path("/nonexistent.npz"), effort=QUICK)
    ((measured,),) = other.measure(dense, [[small]])
    assert measured.error is not None


def test_one_that_fails_among_several_costs_the_others_nothing(
    bench: Bench, dense: Candidate, small: Candidate, broken: Candidate
) -> None:
    candidates = {"a": small, "b": broken, "c": dense, "d": small, "e": small}
    found: dict[str, Measurement] = {}
    measure_together(bench, dense, candidates, found.__setitem__, seed=0, effort=QUICK)
    assert {name: result.error is None for name, result in found.items()} == {name: name != "b" for name in candidates}
    assert found["a"].speedup > 1.5 > found["c"].speedup


def test_those_that_take_turns_share_a_reference_and_are_told_as_they_come(
    bench: Bench, dense: Candidate, small: Candidate
) -> None:
    names = [f"plan {number}" for number in range(MOST_TOGETHER + 1)]
    found: dict[str, Measurement] = {}
    measure_together(bench, dense, dict.fromkeys(names, small), found.setdefault, seed=0, effort=QUICK)
    references = [found[name].reference_s for name in names]
    assert references[:MOST_TOGETHER] == [references[0]] * MOST_TOGETHER
    assert references[-1] != references[0]


def test_large_files_do_not_share_memory(
    bench: Bench, dense: Candidate, small: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profilers.together.TOGETHER_BYTES", 2 * dense.path.stat().st_size)
    found: dict[str, Measurement] = {}
    measure_together(bench, dense, dict.fromkeys("abc", small), found.__setitem__, seed=0, effort=QUICK)
    assert found["a"].reference_s == found["b"].reference_s != found["c"].reference_s


def test_the_worker_is_the_same_file_whatever_the_clock_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zip files know no time before 1980, where clocks of small devices start, and files of reproducible images are."""
    pack_worker(tmp_path / "now.pyz")
    sources = shutil.copytree(Path(worker_process.__file__).parent, tmp_path / "profilers")
    for source in sources.glob("*.py"):
        os.utime(source, (0, 0))
    monkeypatch.setattr(worker_process, "__file__", str(sources / "worker_process.py"))
    monkeypatch.setattr(time, "time", lambda: 0.0)
    for name in ("1970.pyz", "again.pyz"):
        pack_worker(tmp_path / name)
    assert (tmp_path / "again.pyz").read_bytes() == (tmp_path / "1970.pyz").read_bytes()
    with ZipFile(tmp_path / "now.pyz") as now, ZipFile(tmp_path / "1970.pyz") as old:
        assert {name: now.read(name) for name in now.namelist()} == {name: old.read(name) for name in old.namelist()}


def may_take_precedence(*drop: str) -> bool:
    command = [*drop, sys.executable, "-c", "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def without_precedence(bench: Bench, folder: Path) -> RuntimeInfo:
    """The bench's runtime with an interpreter that may not run ahead of others."""
    interpreter = folder / "python"
    drop = ["setpriv", "--bounding-set", "-sys_nice"] if may_take_precedence() else []
    if drop and shutil.which(drop[0]) is None:
        pytest.skip("nothing here takes a right away from a process")
    if may_take_precedence(*drop):
        pytest.skip("every process may run ahead of others here")
    interpreter.write_text(f'#!/bin/sh\nexec {" ".join(drop)} {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    return replace(bench.runtime, interpreter=interpreter)


@pytest.fixture
def neighbours() -> Iterator[None]:
    """A busy process on every core that a worker may get, each in a session of its own."""
    busy = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: sum(range(10_000))"
    processes = [
        subprocess.Popen([sys.executable, "-I", "-c", busy, str(cpu)], start_new_session=True)
        for cpu in os.sched_getaffinity(0)
    ]
    yield
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.skipif(not may_take_precedence(), reason="processes may not run ahead of others here")
@pytest.mark.skipif(waited_s() is None, reason="this kernel does not count how long threads wait")
@pytest.mark.usefixtures("neighbours")
def test_with_precedence_neighbours_hardly_hold_a_measurement_up(
    bench: Bench, dense: Candidate, small: Candidate
) -> None:
    waited = []
    for precedence in (False, True, None):  # None: as is needed here
        each = replace(bench, target=replace(bench.target, precedence=precedence), precedence=Precedence())
        ((measured,),) = each.measure(dense, [[small]])
        assert measured.error is None
        assert measured.machine["is_ahead"] == (precedence is not False)
        waited.append(np.median([share for share in measured.waited_share if share is not None]))
    assert waited[0] > 0.2
    assert max(waited[1:]) < waited[0] / 2


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no distance, and no helper")
def test_the_process_that_helps_to_measure_is_no_neighbour(bench: Bench, dense: Candidate, small: Candidate) -> None:
    """What computes here beside it, with and without the measuring, is counted in the same way."""
    cpus = pinned_cpus(2)
    for _ in range(3):
        before = read_state(cpus)
        time.sleep(1)
        others = difference(before, read_state(cpus))["others_cores"]
        both = replace(bench, target=replace(bench.target, threads=2), precedence=Precedence())
        ((measured,),) = both.measure(dense, [[small]], effort=replace(QUICK, patience_s=0.0))
        if measured.machine["others_cores"] < others + BUSY / 2:
            return
    pytest.fail("the helper counts as another process")


@pytest.mark.usefixtures("neighbours")
def test_where_the_system_refuses_precedence_that_nobody_asked_for_it_is_measured_as_it_is(
    bench: Bench, dense: Candidate, tmp_path: Path
) -> None:
    weak = replace(bench, runtime=without_precedence(bench, tmp_path), precedence=Precedence())
    ((measured,),) = weak.measure(dense, [[dense]])
    assert measured.error is None
    assert weak.precedence.is_needed
    assert not measured.machine["is_ahead"]


def test_precedence_is_for_this_host_and_for_targets_that_leave_it_open(bench: Bench) -> None:
    busy = {"others_cores": 1.0}
    for target in (replace(bench.target, precedence=False), replace(bench.target, host="ssh://user@device")):
        precedence = Precedence()
        assert not precedence.saw(busy, target)
        assert precedence.request(target) == ""
    precedence = Precedence()
    assert precedence.saw(busy, bench.target)
    assert not precedence.saw(busy, bench.target), "once is enough"
    assert precedence.request(bench.target) == "if-allowed"


def test_precedence_that_the_system_refuses_is_a_clear_error(bench: Bench, dense: Candidate, tmp_path: Path) -> None:
    runtime = without_precedence(bench, tmp_path)
    with pytest.raises(ConfigError, match="--precedence"):
        replace(bench, runtime=runtime, target=replace(bench.target, precedence=True)).measure(dense, [[dense]])

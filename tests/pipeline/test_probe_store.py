"""What was once found about a runtime is used again, where it still holds."""

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.probe_store import MOST_AGE_S, ProbeStore
from pipeline.probing import other_runtimes
from profilers.probe import ProbeRow, RuntimeCapability
from targets.registry import RuntimeInfo, get_runtime
from targets.target import Target
from tests.opened_runs import opened_run

TARGET = Target(name="auto", vendor="any", runtime=None, threads=2, batch_size=64)
GAINING = RuntimeCapability(
    "onnxruntime", "1", ("channel",), "MIT", (ProbeRow("conv3x3, channel", 0.5, 0.001, 2.0, family="channel"),)
)


@pytest.fixture
def info() -> RuntimeInfo:
    return get_runtime("onnxruntime")


def test_a_probe_is_known_to_the_next_run_and_forgotten_on_request(tmp_path: Path, info: RuntimeInfo) -> None:
    store = ProbeStore(tmp_path / "probes", "host", TARGET)
    assert store.find(info) is None
    store.keep(info, GAINING)
    found = store.find(info)
    assert found is not None
    assert found[0] == GAINING
    assert 0 <= found[1] < 60
    store.forget(info)
    store.forget(info)
    assert store.find(info) is None


def test_it_holds_for_the_same_host_runtime_threads_and_batch_size_alone(tmp_path: Path, info: RuntimeInfo) -> None:
    store = ProbeStore(tmp_path, "host", TARGET)
    store.keep(info, GAINING)
    assert replace(store, target=replace(TARGET, name="intel", vendor="intel")).find(info)
    assert not replace(store, host_id="other").find(info)
    assert not replace(store, target=replace(TARGET, threads=1)).find(info)
    assert not replace(store, target=replace(TARGET, batch_size=1)).find(info)
    assert not store.find(replace(info, version="0"))
    assert not store.find(replace(info, interpreter=tmp_path / "python"))


def test_what_gains_nothing_or_failed_in_part_is_not_kept(tmp_path: Path, info: RuntimeInfo) -> None:
    store = ProbeStore(tmp_path, "host", TARGET)
    store.keep(info, replace(GAINING, rows=()))
    store.keep(info, replace(GAINING, rows=(*GAINING.rows, ProbeRow("matmul", 0.9, None, None, "crashed"))))
    assert store.find(info) is None


def test_what_is_old_broken_or_from_the_future_is_not_used(tmp_path: Path, info: RuntimeInfo) -> None:
    store = ProbeStore(tmp_path, "host", TARGET)
    store.keep(info, GAINING)
    (path,) = tmp_path.iterdir()
    for moved_s in (-MOST_AGE_S - 60, 3600):
        os.utime(path, (time.time() + moved_s,) * 2)
        assert store.find(info) is None
    os.utime(path)
    assert store.find(info)
    path.write_text(path.read_text()[:-5])
    assert store.find(info) is None


def test_a_cache_that_cannot_be_written_keeps_nothing_and_stops_nobody(tmp_path: Path, info: RuntimeInfo) -> None:
    (tmp_path / "file").write_text("")
    store = ProbeStore(tmp_path / "file" / "probes", "host", TARGET)
    store.keep(info, GAINING)
    assert store.find(info) is None


def test_other_runtimes_are_told_with_what_they_gain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.probing.cache_home", lambda: tmp_path / "cache")
    run = opened_run(tmp_path / "run", runtime="openvino")
    (told,) = [text for text in other_runtimes(run) if text.startswith("onnxruntime")]
    assert told == "onnxruntime (channel, int8)"
    ProbeStore(tmp_path / "cache" / "probes", run.host.id, run.target).keep(get_runtime("onnxruntime"), GAINING)
    (told,) = [text for text in other_runtimes(run) if text.startswith("onnxruntime")]
    assert told == "onnxruntime (2.00x at half to a quarter of the channels in the probe)"
    assert not any(text.startswith("openvino") for text in other_runtimes(run))

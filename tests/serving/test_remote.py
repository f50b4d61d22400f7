"""An engine in a process of its own: here under this interpreter, so that it needs no other one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from pipeline.serving.remote import RemoteEngine
from targets.errors import RuntimeMissingError
from targets.registry import get_runtime
from tests.serving.bundles import RECORD
from tests.targets.test_runtimes import make_weights, reference

X = np.random.default_rng(3).standard_normal((8, 3, 16, 16)).astype(np.float32)


def start(bundle: Path, runtime: str = "onnxruntime") -> RemoteEngine:
    return RemoteEngine(get_runtime(runtime), bundle / "model.onnx", RECORD, 1)


def server_of(process: int) -> psutil.Process:
    (found,) = (p for p in psutil.Process(process).children(recursive=True) if "server.pyz" in " ".join(p.cmdline()))
    return found


@pytest.fixture
def engine(bundle: Path) -> Iterator[RemoteEngine]:
    opened = start(bundle)
    yield opened
    opened.close()


def test_outputs_come_from_another_process(engine: RemoteEngine) -> None:
    assert server_of(os.getpid()).pid != os.getpid()
    outputs = engine.run([X])
    engine.run([X[::-1]])
    np.testing.assert_allclose(outputs, reference(make_weights(), X), atol=1e-4)


def test_closing_ends_the_process(bundle: Path) -> None:
    engine = start(bundle)
    server = server_of(os.getpid())
    engine.close()
    assert not server.is_running()


def test_a_server_that_was_killed_is_an_error_that_says_what_to_do(engine: RemoteEngine) -> None:
    server_of(os.getpid()).kill()
    for _ in range(2):
        with pytest.raises(RuntimeMissingError, match=r"server has ended \(-9\)[\s\S]*Load the bundle again"):
            engine.run([X])


def test_an_interrupted_run_never_answers_the_next_one(engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(engine, "_answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.run([X])
    with pytest.raises(RuntimeMissingError, match="server has ended"):
        engine.run([X])


def test_a_network_that_cannot_be_run_is_told_by_the_runtimes_own_words(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(RuntimeMissingError, match=r"onnxruntime cannot run the bundle's network: .*broken\.onnx"):
        RemoteEngine(get_runtime("onnxruntime"), broken, RECORD, 1)
    with pytest.raises(RuntimeMissingError, match="fixed batch size 8, not 4"):
        RemoteEngine(get_runtime("onnxruntime"), bundle / "model.onnx", replace(RECORD, batch_size=4), 1)


def test_the_server_ends_with_the_process_that_started_it(bundle: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.serving.test_remote import start\n"
        "engine = start(Path(sys.argv[1]))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, bundle], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    server = server_of(parent.pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)

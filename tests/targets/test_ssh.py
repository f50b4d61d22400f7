"""A device over ssh, against a real sshd: the same answers as on this host, and words for everything that fails."""

import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from profilers.measure import Bench, Candidate, Effort, Measurement
from targets.devices.registry import open_device
from targets.devices.ssh import SshDevice
from targets.errors import ConfigError, RuntimeMissingError, UnreachableError
from targets.host import collect_host, pinned_cpus
from targets.target import Target, load_target
from tests.profilers.test_measure import write_matmul
from tests.targets.sshd import MISSING, SSHD, Sshd, make_key, reachable_sshd, sshd

pytestmark = [pytest.mark.timed, pytest.mark.skipif(SSHD is None, reason=MISSING)]

QUICK = Effort(warmups=1, rounds=3, seconds=0.5, patience_s=0.0, timeout_s=60)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    folder = tmp_path / "sshd"
    folder.mkdir()
    with reachable_sshd(folder, monkeypatch) as running:
        yield running


@pytest.fixture
def device(server: Sshd) -> SshDevice:
    return SshDevice(server.address, sys.executable)


@pytest.fixture
def bench(server: Sshd) -> Bench:
    return bench_on(server)


def bench_on(server: Sshd) -> Bench:
    target = Target(
        name="box",
        vendor="any",
        runtime="onnxruntime",
        threads=1,
        batch_size=4,
        host=server.address,
        python=sys.executable,
    )
    (info,) = (info for info in target.device.runtimes() if info.name == "onnxruntime")
    return Bench(info, target, effort=QUICK)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Candidate, Candidate]:
    folder = tmp_path_factory.mktemp("models")
    return (
        Candidate("dense", write_matmul(folder / "dense.onnx", 256, 8)),
        Candidate("small", write_matmul(folder / "small.onnx", 256, 2)),
    )


def test_a_host_is_the_same_host_from_outside(device: SshDevice) -> None:
    here, there = collect_host(), device.host()
    assert there.id == here.id
    assert there.usable_cores == here.usable_cores == device.cores()
    assert device.pinned_cpus(2) == pinned_cpus(2)
    assert {info.name for info in device.runtimes()} >= {"onnxruntime", "openvino"}


def test_models_are_measured_and_run_there_and_nothing_is_left(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd
) -> None:
    dense, small = models
    ((measured,), (broken,), (again,)) = bench.measure(
        dense, [[small], [Candidate("broken", server.folder / "ssh_config")], [small]]
    )
    assert measured.error is None
    assert measured.speedup > 0
    assert broken.error
    assert again.error is None
    inputs = np.random.default_rng(0).standard_normal((6, 256)).astype(np.float32)
    assert bench.infer(small, {"x0": inputs}).shape == (6, 256)
    sent = list((server.folder / "cache" / "spdy-edge").iterdir())
    assert len(sent) == 1
    open_device.cache_clear()
    del bench
    assert wait_for(lambda: not any((server.folder / "cache" / "spdy-edge").iterdir()))


def test_what_the_shell_of_a_device_says_first_is_passed_over(
    tmp_path: Path, models: tuple[Candidate, Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "sshd"
    folder.mkdir()
    talks = 'ForceCommand sh -c \'printf "welcome\\nto the box"; eval "$SSH_ORIGINAL_COMMAND"\''
    with sshd(folder, talks) as running:
        monkeypatch.setenv("SPDY_EDGE_SSH", running.command)
        open_device.cache_clear()
        assert SshDevice(running.address, sys.executable).host().id == collect_host().id
        inputs = np.zeros((4, 256), np.float32)
        assert bench_on(running).infer(models[1], {"x0": inputs}).shape == (4, 256)
        open_device.cache_clear()


SLOW = """
import os, socket, sys, threading, time

def pump(read, write):
    while data := read(4096):
        write(data)
        time.sleep(0.005)

way = socket.create_connection((sys.argv[1], int(sys.argv[2])))
threading.Thread(target=pump, args=(way.recv, lambda data: os.write(1, data)), daemon=True).start()
pump(lambda size: os.read(0, size), way.sendall)
"""


def test_a_slow_way_to_a_device_costs_time_and_no_result(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Less than a megabyte a second, for models of two: nothing that waits for an answer gives up meanwhile."""
    relay = server.folder / "slow.py"
    relay.write_text(SLOW)
    monkeypatch.setenv("SPDY_EDGE_SSH", f"{server.command} -o 'ProxyCommand={sys.executable} {relay} %h %p'")
    open_device.cache_clear()
    ((measured,),) = bench.measure(models[0], [[models[1]]])
    assert measured.error is None
    assert measured.speedup > 0


def test_a_device_that_lost_what_was_sent_is_sent_it_again(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd
) -> None:
    """As one that was started anew, and keeps its cache in memory."""

    def start_anew(_: object) -> None:
        if not (server.folder / "anew").exists():
            (server.folder / "anew").touch()
            server.stop()
            shutil.rmtree(server.folder / "cache")
            threading.Timer(0.5, server.start).start()

    results = bench.measure(
        models[0], [[models[1]]] * 3, on_group=start_anew, effort=Effort(1, 20, 1.0, patience_s=0.0, timeout_s=60)
    )
    assert [group[0].error for group in results] == [None] * 3


def wait_for(condition: object, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.1)
    return False


def test_a_connection_that_is_lost_half_way_costs_no_result(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd
) -> None:
    dense, small = models
    heard: list[list[Measurement]] = []

    def drop_once(group: list[Measurement]) -> None:
        heard.append(group)
        if len(heard) == 1:
            server.stop()
            threading.Timer(0.5, server.start).start()

    results = bench.measure(
        dense, [[small]] * 4, on_group=drop_once, effort=Effort(1, 20, 1.0, patience_s=0.0, timeout_s=60)
    )
    assert [group[0].error for group in results] == [None] * 4
    assert heard == results


def test_a_device_that_stops_answering_half_way_costs_no_result(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sessions are stopped, as a device that hangs, or a way to it that swallows everything."""
    monkeypatch.setenv("SPDY_EDGE_SSH", f"{server.command} -o ServerAliveInterval=1 -o ServerAliveCountMax=1")
    open_device.cache_clear()
    stopped: list[int] = []

    def hang_once(group: list[Measurement]) -> None:
        if not stopped:
            stopped.extend(server.hang())

    results = bench.measure(
        models[0], [[models[1]]] * 3, on_group=hang_once, effort=Effort(1, 20, 1.0, patience_s=0.0, timeout_s=60)
    )
    assert stopped
    assert [group[0].error for group in results] == [None] * 3


def test_a_connection_that_is_lost_while_outputs_come_is_made_again(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd
) -> None:
    assert bench.device.hold([models[1].path])  # connected before
    server.stop()
    threading.Timer(0.5, server.start).start()
    inputs = np.random.default_rng(0).standard_normal((6, 256)).astype(np.float32)
    assert bench.infer(models[1], {"x0": inputs}).shape == (6, 256)


def test_a_device_that_is_gone_ends_the_run_with_its_words(
    bench: Bench, models: tuple[Candidate, Candidate], server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profilers.measure.RECONNECT_S", (0.01,))
    server.stop()
    with pytest.raises(UnreachableError, match="Connection refused"):
        bench.measure(models[0], [[models[1]]])


@pytest.mark.parametrize("strictness", ["yes", "no"])
def test_another_host_key_stops_everything(server: Sshd, monkeypatch: pytest.MonkeyPatch, strictness: str) -> None:
    """Whatever the user's configuration says: with ``no``, ssh itself would warn and go on."""
    monkeypatch.setenv("SPDY_EDGE_SSH", f"{server.command} -o StrictHostKeyChecking={strictness}")
    device = SshDevice(server.address, sys.executable)
    other = make_key(server.folder / "other").with_name("other.pub").read_text()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
    with pytest.raises(ConfigError, match="host key is not the one"):
        device.host()


def test_a_host_key_that_changes_half_way_stops_what_is_measured(
    models: tuple[Candidate, Candidate], server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is there already, so that ssh is asked for nothing but the measuring itself, and would go on."""
    monkeypatch.setenv("SPDY_EDGE_SSH", f"{server.command} -o StrictHostKeyChecking=no")
    bench = bench_on(server)
    bench.measure(models[0], [[models[1]]])
    other = make_key(server.folder / "other").with_name("other.pub").read_text()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
    with pytest.raises(ConfigError, match="host key is not the one"):
        bench.measure(models[0], [[models[1]]])


def test_a_device_whose_key_runs_another_command_is_none(device: SshDevice, server: Sshd) -> None:
    keys = server.folder / "authorized_keys"
    keys.write_text(f'command="echo hello" {keys.read_text()}')
    with pytest.raises(UnreachableError, match=r"hello\nThe device needs a POSIX shell"):
        device.host()


def test_an_interpreter_that_says_something_else_is_named(server: Sshd, tmp_path: Path) -> None:
    talks = tmp_path / "python"
    talks.write_text("#!/bin/sh\necho Welcome\n")
    talks.chmod(0o755)
    with pytest.raises(UnreachableError, match="did not describe the device"):
        SshDevice(server.address, str(talks)).host()


def test_a_key_that_is_not_allowed_is_a_mistake_of_the_configuration(device: SshDevice, server: Sshd) -> None:
    (server.folder / "authorized_keys").write_text("")
    with pytest.raises(ConfigError, match="Permission denied"):
        device.host()


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SPDY_EDGE_SSH", "ssh -F none -o ConnectTimeout=1")
        with pytest.raises(UnreachableError, match="timed out"):
            SshDevice(f"ssh://127.0.0.1:{silent.getsockname()[1]}").host()


def test_a_command_that_hangs_on_a_device_that_answers_is_given_up(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its disk no longer answers."""
    hangs = tmp_path / "ssh"
    hangs.write_text(f'#!/bin/sh\nexec {server.command} "$@"\\; sleep 60\n')
    hangs.chmod(0o755)
    monkeypatch.setenv("SPDY_EDGE_SSH", str(hangs))
    monkeypatch.setattr("targets.devices.ssh.SILENT_S", 1.0)
    with pytest.raises(UnreachableError, match="did not end within"):
        SshDevice(server.address, sys.executable).host()


def test_an_interpreter_that_is_not_there(server: Sshd) -> None:
    with pytest.raises(RuntimeMissingError, match="python"):
        SshDevice(server.address, "/nowhere/python").host()


def test_a_full_disk_on_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is unpacked there goes to the device that is always full."""
    folder = tmp_path / "sshd"
    folder.mkdir()
    full = folder / "full"
    full.mkdir()
    (full / "tar").write_text("#!/bin/sh\nexec /bin/tar \"$@\" --to-command='cat >/dev/full'\n")
    (full / "tar").chmod(0o755)
    with sshd(folder, f"SetEnv PATH={full}:/usr/bin:/bin XDG_CACHE_HOME={folder}/cache") as running:
        monkeypatch.setenv("SPDY_EDGE_SSH", running.command)
        with pytest.raises(UnreachableError, match="no room"):
            SshDevice(running.address, sys.executable).host()


@pytest.mark.parametrize(
    "address", ["ssh://", "ssh://-oProxyCommand=x", "ssh://user:secret@box", "ssh://box/path", "ssh://box:port", "box"]
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="no address"):
        open_device(address)


def test_a_target_names_its_device(server: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "kiosk.toml"
    file.write_text(f'host = "{server.address}"\npython = "{sys.executable}"\nbatch_size = 4\n')
    target = load_target(file)
    assert target.threads == target.device.cores()
    with pytest.raises(ConfigError, match="Ask for at most"):
        load_target(file, threads=10_000)

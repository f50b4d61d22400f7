"""Everything that can be wrong with a bundle or its host has an exit code, and a message that says what to do."""

import ast
import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.certification.evidence import measure_speedup
from pipeline.releases.bundle import MANIFEST
from pipeline.run_folder import file_digest
from tests.bundles import contents
from tests.quick_runs import Finished, command, measure_little
from tests.targets.sshd import MISSING, SSHD, Sshd, make_key, reachable_sshd, sshd
from tests.verifying.bundles import runnable_bundle

pytestmark = pytest.mark.timed

ROOT = Path(__file__).parents[2]
Verify = Callable[..., Finished]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    measure_little(monkeypatch)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runnable_bundle(tmp_path_factory.mktemp("good"))


@pytest.fixture
def verify(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Verify:
    record = tmp_path / "record.json"

    def run(bundle: Path, *arguments: object) -> Finished:
        return command(capfd, "verify", bundle, "--record", record, *arguments)

    return run


def change_a_byte(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 3] ^= 4
    (bundle / "model.onnx").write_bytes(content)


def of_another_version(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(manifest | {"schema": 9}))


def cut_the_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).write_text((bundle / MANIFEST).read_text()[:40])


def with_a_newer_certificate(bundle: Path) -> None:
    """As a newer version writes it, its manifest included."""
    path = bundle / "certificate.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 9}))
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"]["certificate.json"]["sha256"] = file_digest(path)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change_a_byte, ("model.onnx was changed", "Get it again")),
        (lambda bundle: (bundle / "plan.json").unlink(), ("plan.json is missing", "Get it again")),
        (lambda bundle: (bundle / "extra.onnx").touch(), ("extra.onnx was added", "Get it again")),
        (lambda bundle: (bundle / "more").symlink_to("elsewhere"), ("more was added", "Get it again")),
        (lambda bundle: (bundle / MANIFEST).unlink(), ("has no manifest.json", "Get it again")),
        (of_another_version, ("schema 9", "another version wrote it", "make the bundle again")),
        (cut_the_manifest, (MANIFEST, "Get the bundle again")),
        (lambda bundle: (bundle / MANIFEST).write_text('{"schema": 1}'), ("lists no files", "Get the bundle again")),
        (with_a_newer_certificate, ("schema 9", "Update spdy-edge")),
    ],
    ids=["byte", "missing", "extra", "link", "no manifest", "version", "cut", "empty manifest", "newer certificate"],
)
def test_what_is_not_as_it_was_certified(
    verify: Verify, tmp_path: Path, damage: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    bundle = runnable_bundle(tmp_path)
    damage(bundle)
    before = contents(bundle)
    ended = verify(bundle, "--json")
    assert ended.code == json.loads(ended.out)["exit_code"] == 5
    assert all(word in ended.err for word in words), ended.err
    assert contents(bundle) == before
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["status"], record["exit_code"], record["checks"][0]["name"]) == ("altered", 5, "files")


def test_no_bundle_at_all(verify: Verify, tmp_path: Path) -> None:
    ended = verify(tmp_path / "nowhere")
    assert ended.code == 2
    assert "There is no bundle" in ended.err
    assert "Give the folder" in ended.err


def test_other_golden_outputs(verify: Verify, tmp_path: Path) -> None:
    ended = verify(runnable_bundle(tmp_path, spoil=True))
    assert ended.code == 5
    assert "golden outputs" in ended.err
    assert "Get the bundle again" in ended.err


def test_another_cpu(verify: Verify, tmp_path: Path) -> None:
    other = runnable_bundle(tmp_path, host={"id": "0" * 16, "model": "Another CPU"})
    ended = verify(other, "--no-measure")
    assert ended.code == 0
    assert "the certificate's figures are of the other one" in ended.err
    (tmp_path / "record.json").unlink()
    ended = verify(other, "--no-measure", "--strict-host")
    assert ended.code == 7
    assert "Verify on a host of that kind" in ended.err


def test_no_runtime(verify: Verify, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "empty"))
    monkeypatch.delenv("SPDY_EDGE_DEEPSPARSE_PYTHON", raising=False)
    other = runnable_bundle(tmp_path, target={"runtime": "deepsparse", "threads": 1, "batch_size": 4})
    ended = verify(other)
    assert ended.code == 7
    assert "pipeline runtimes install deepsparse" in ended.err


def test_a_claim_that_is_missed_says_what_can_be_done(verify: Verify, good: Path, tmp_path: Path) -> None:
    ended = verify(good, "--min-speedup", 500)
    speedup = json.loads((tmp_path / "record.json").read_text())["speedup"]
    assert ended.code == (6 if speedup["is_disturbed"] else 3)
    assert ("quieter machine" if speedup["is_disturbed"] else "--min-speedup") in ended.err


def test_a_clock_that_jumps_changes_no_figure(verify: Verify, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes back by a day whenever somebody looks at it; no time here is taken from it."""
    looks = iter(range(10**9))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400 * next(looks))
    ended = verify(good, "--json")
    assert ended.code in (0, 3, 6), ended.err
    assert 1.01 < json.loads(ended.out)["speedup"]["measured_speedup"] < 100


def test_a_clock_that_is_wrong_is_said(verify: Verify, tmp_path: Path) -> None:
    ended = verify(runnable_bundle(tmp_path, created="2999-01-01T00:00:00+00:00"), "--no-measure")
    assert ended.code == 0
    assert "one of the clocks is wrong" in ended.err


def test_nothing_that_measures_reads_the_wall_clock() -> None:
    """The worker is a process of its own, so that its source is asked."""
    for path in sorted((ROOT / "profilers").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in {("time", "time"), ("time", "time_ns")}, path.name
                assert node.value.id != "datetime", path.name


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    if SSHD is None:
        pytest.skip(MISSING)
    folder = tmp_path / "sshd"
    folder.mkdir()
    with reachable_sshd(folder, monkeypatch) as running:
        yield running


def test_a_device_that_refuses(verify: Verify, good: Path, server: Sshd) -> None:
    server.stop()
    ended = verify(good, "--host", server.address, "--json")
    assert ended.code == json.loads(ended.out)["exit_code"] == 7
    assert "Connection refused" in ended.err
    assert "repeat the command" in ended.err


def test_a_device_that_is_lost_for_good_while_it_measures(
    verify: Verify, good: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profilers.measure.RECONNECT_S", (0.01,))

    def lose_first(*arguments: Any, **settings: Any) -> Any:
        server.stop()
        return measure_speedup(*arguments, **settings)

    monkeypatch.setattr("pipeline.verifying.verify.measure_speedup", lose_first)
    ended = verify(good, "--host", server.address, "--python", sys.executable)
    assert ended.code == 7
    assert "repeat the command: a run goes on" in ended.err


@pytest.mark.skipif(SSHD is None, reason=MISSING)
def test_a_device_that_says_nothing(verify: Verify, good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("SPDY_EDGE_SSH", "ssh -F none -o ConnectTimeout=1")
        ended = verify(good, "--host", f"ssh://127.0.0.1:{silent.getsockname()[1]}")
    assert ended.code == 7
    assert "timed out" in ended.err
    assert "See that the device is up" in ended.err


@pytest.mark.skipif(SSHD is None, reason=MISSING)
def test_a_device_without_room_for_the_models(
    verify: Verify, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What describes the device fits; the first archive with a model goes to the file that is always full."""
    monkeypatch.setattr("profilers.measure.RECONNECT_S", (0.01,))
    folder = tmp_path / "sshd"
    tools = folder / "tools"
    tools.mkdir(parents=True)
    (tools / "tar").write_text(
        f"#!/bin/sh\ncat >{folder}/sent\ncase $(/bin/tar -tf {folder}/sent) in\n"
        f"*onnx*) exec /bin/tar \"$@\" --to-command='cat >/dev/full' <{folder}/sent ;;\n"
        f'*) exec /bin/tar "$@" <{folder}/sent ;;\nesac\n'
    )
    (tools / "tar").chmod(0o755)
    with sshd(folder, f"SetEnv PATH={tools}:/usr/bin:/bin XDG_CACHE_HOME={folder}/cache") as running:
        monkeypatch.setenv("SPDY_EDGE_SSH", running.command)
        ended = verify(good, "--host", running.address, "--python", sys.executable)
    assert ended.code == 7
    assert "no room left" in ended.err
    assert "Make room" in ended.err


def test_a_device_with_another_host_key(verify: Verify, good: Path, server: Sshd) -> None:
    other = make_key(server.folder / "other").with_name("other.pub").read_text()
    (server.folder / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
    ended = verify(good, "--host", server.address)
    assert ended.code == 2
    assert "host key is not the one that is known" in ended.err
    assert "correct known_hosts" in ended.err


def test_a_device_that_is_met_for_the_first_time(verify: Verify, good: Path, server: Sshd) -> None:
    (server.folder / "known_hosts").write_text("")
    ended = verify(good, "--host", server.address)
    assert ended.code == 2
    assert f"accept it once by hand: {server.command} -p {server.port}" in ended.err.replace("\n", " ")


def test_a_device_whose_interpreter_has_no_runtime(verify: Verify, good: Path, server: Sshd, bare_python: Path) -> None:
    ended = verify(good, "--host", server.address, "--python", bare_python)
    assert ended.code == 7
    assert "certified on onnxruntime, and the interpreter there has no runtime" in ended.err
    assert "--python" in ended.err


@pytest.fixture
def bare_python(tmp_path: Path) -> Path:
    """An interpreter that finds no packages."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    path.chmod(0o755)
    return path

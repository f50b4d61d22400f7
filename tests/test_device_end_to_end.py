"""A whole run on a device behind a real sshd: the connection is lost and comes back, and the bundle is verified there.

The latency table that was measured there is then carried to a run that knows the device from nothing else.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.releases.bundle import check_bundle
from targets import environments
from targets.host import collect_host
from tests.quick_runs import SETTINGS, Finished, command, measure_little
from tests.targets.sshd import MISSING, SSHD, Sshd, reachable_sshd

pytestmark = [
    pytest.mark.slow,
    pytest.mark.deepsparse,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(SSHD is None, reason=MISSING),
    pytest.mark.skipif(
        environments.installed("deepsparse") is None, reason="DeepSparse's environment is not installed"
    ),
]
Pipeline = Callable[..., Finished]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        measure_little(patch)
        yield patch


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    with reachable_sshd(tmp_path_factory.mktemp("sshd"), patch) as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch, server: Sshd) -> Path:
    """Where everything is done, with the file of the target."""
    folder = tmp_path_factory.mktemp("work")
    patch.chdir(folder)
    python = environments.installed("deepsparse")
    lines = (f'host = "{server.address}"', f'python = "{python}"', "threads = 1")
    (folder / "box.toml").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def pipeline(capfd: pytest.CaptureFixture[str], folder: Path) -> Pipeline:
    return lambda *arguments: command(capfd, *arguments)


RUN = ("run", "--target", "box.toml", "--speedup", 1.1, *SETTINGS, "--out", "out")


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Wait for a condition beside the run, then act."""

    def wait() -> None:
        while not condition():
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def state() -> dict[str, Any]:
    """What earlier tests of this file leave for later ones, which are the next steps of one story."""
    return {}


def test_a_connection_lost_for_good_ends_the_run_and_keeps_what_was_measured(
    pipeline: Pipeline, folder: Path, server: Sshd, state: dict[str, Any]
) -> None:
    log = folder / "out" / "measurements.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("profilers.measure.RECONNECT_S", (0.01,))
        stopper = when(lambda: lines(log) > 4, server.stop)
        ended = pipeline(*RUN, "--json")
        stopper.join(timeout=10)
    server.start()
    assert ended.code == 7, ended.err
    assert "a run goes on from what it has measured" in ended.err.replace("\n", " ")
    assert json.loads(ended.out)["exit_code"] == 7
    state["kept"] = log.read_text().rpartition("\n")[0]
    assert len(state["kept"].splitlines()) > 3


def test_the_same_command_goes_on_and_outlives_a_short_loss(
    pipeline: Pipeline, folder: Path, server: Sshd, state: dict[str, Any]
) -> None:
    lost: list[str] = []

    def lose() -> None:
        server.stop()
        lost.append("lost")
        time.sleep(0.5)
        server.start()

    restarter = when((folder / "out" / "parity.json").exists, lose)  # certifying comes next
    ended = pipeline(*RUN, "--json")
    restarter.join(timeout=10)
    assert lost
    assert ended.code in (0, 3, 6), ended.err
    assert (folder / "out" / "measurements.jsonl").read_text().startswith(state["kept"])
    state["answer"] = json.loads(ended.out)


def test_the_certificate_is_the_devices(folder: Path, server: Sshd, state: dict[str, Any]) -> None:
    check_bundle(folder / "out" / "bundle")
    certificate = json.loads((folder / "out" / "certificate.json").read_text())
    assert certificate["status"] == state["answer"]["status"]
    assert certificate["host"]["id"] == collect_host().id  # the loopback leads here
    assert certificate["target"]["host"] == server.address
    assert certificate["measured_speedup"] > 0  # by two processes beside other work
    assert certificate["accuracy"]["compressed"] > 0.5
    assert not certificate["proxy"]
    assert set(certificate["deployment"]) == {"dense", "compressed"}
    assert isinstance(certificate["hidden_costs"], dict)
    assert "energy_j" not in certificate["deployment"]["dense"] or certificate["deployment"]["dense"]["energy_j"] > 0


def test_certified_and_verified_there_again(pipeline: Pipeline, folder: Path, server: Sshd) -> None:
    before = json.loads((folder / "out" / "certificate.json").read_text())["created"]
    time.sleep(1.1)  # certificates say when in whole seconds
    ended = pipeline("certify", "out", "--again", "--json")
    assert ended.code in (0, 3, 6), ended.err
    assert json.loads((folder / "out" / "certificate.json").read_text())["created"] > before
    python = environments.installed("deepsparse")
    place = ("--host", server.address, "--python", python, "--record", "there.json")
    ended = pipeline("verify", "out/bundle", *place, "--min-speedup", 1.01, "--json")
    assert ended.code in (0, 3, 6), ended.err
    record = json.loads((folder / "there.json").read_text())
    assert record["target"]["host"] == server.address
    assert record["speedup"]["measured_speedup"] > 0
    checks = {check["name"]: check["status"] for check in record["checks"]}
    assert {checks[name] for name in ("files", "host", "golden outputs")} == {"passed"}


def test_its_table_is_carried_to_a_run_that_is_a_proxy_until_it_is_verified_there(
    pipeline: Pipeline, folder: Path, server: Sshd
) -> None:
    ended = pipeline("profile", "out", "--export", "box.json")
    assert ended.code == 0, ended.err
    table = json.loads((folder / "box.json").read_text())
    assert table["host_id"] == collect_host().id
    (folder / "box.json").write_text(json.dumps(table | {"host_id": "another"}))
    here = ("run", "--runtime", "deepsparse", "--threads", 1, "--speedup", 1.1, *SETTINGS)
    ended = pipeline(*here, "--latency-table", "box.json", "--out", "carried", "--json")
    assert ended.code in (0, 3, 6), ended.err
    assert "box.json was measured on another host (another)" in ended.err
    assert "pipeline verify BUNDLE" in ended.err
    assert json.loads(ended.out)["proxy"]
    assert json.loads((folder / "carried" / "certificate.json").read_text())["proxy"]
    assert not lines(folder / "carried" / "measurements.jsonl") > 1  # nothing here corrects it
    assert "host of the latency table" in (folder / "carried" / "report.md").read_text()
    place = ("--host", server.address, "--python", environments.installed("deepsparse"))
    ended = pipeline("verify", "carried/bundle", *place, "--record", "carried.json", "--min-speedup", 1.01)
    assert ended.code in (0, 3, 6), ended.err
    assert json.loads((folder / "carried.json").read_text())["speedup"]["measured_speedup"] > 0


def test_a_table_of_another_use_is_refused(pipeline: Pipeline) -> None:
    other = ("run", "--runtime", "deepsparse", "--threads", 1, "--speedup", 1.1, *SETTINGS, "--batch-size", 8)
    ended = pipeline(*other, "--latency-table", "box.json", "--out", "other")
    assert ended.code == 2
    assert "batch_size 16, here 8" in ended.err
    ended = pipeline(*other, "--latency-table", "nowhere.json", "--out", "nowhere")
    assert ended.code == 2
    assert "There is no latency table nowhere.json" in ended.err

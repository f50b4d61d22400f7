"""A run as a real MLflow server has it, whatever the server or the run went through."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipeline.tracking.events import Fact
from pipeline.tracking.following import follow_run
from pipeline.tracking.mlflow_tracker import open_tracker
from pipeline.tracking.spool import EVENTS, SENT, Spool
from targets.errors import ConfigError, SpeedupError
from tests.command import pipeline
from tests.tracking.folder import CONFIG, finished_folder, follow
from tests.tracking.mlflow_process import free_port
from tests.tracking.runs import check_everything_arrived_once, run_of

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'spdy-edge[mlflow]'")

Answer = Callable[[BaseHTTPRequestHandler], None]


def track(uri: str, folder: Path) -> list[str]:
    """Follow a run; the warnings."""
    warnings: list[str] = []
    follow(open_tracker(f"mlflow:{uri}", folder, warnings.append), folder)
    return warnings


def test_a_run_with_its_settings_curves_times_and_files(mlflow_uri: str, tmp_path: Path) -> None:
    folder = finished_folder(tmp_path / "release")
    assert track(mlflow_uri, folder) == []
    check_everything_arrived_once(mlflow_uri, folder)
    client, run = run_of(mlflow_uri, folder)
    assert run.info.run_name == "release"
    assert run.data.params["epochs"] == "6"
    assert "track" not in run.data.params
    assert run.data.metrics["stage_seconds/search"] == 96.4
    assert run.data.metrics["certificate/ci_low"] == 3.003
    curve = client.get_metric_history(run.info.run_id, "training/loss")
    assert [(point.step, point.value) for point in curve] == [(i + 1, 0.5 / (i + 1)) for i in range(6)]
    assert len(client.get_metric_history(run.info.run_id, "search/incumbent_loss")) == 320
    assert {file.path for file in client.list_artifacts(run.info.run_id, "bundle")} == {
        *("bundle/plan.json", "bundle/manifest.json")
    }


def test_a_run_that_is_done_again_adds_nothing(mlflow_uri: str, tmp_path: Path) -> None:
    folder = finished_folder(tmp_path / "run")
    track(mlflow_uri, folder)
    metrics = (folder / EVENTS).read_text().count('"metric"')
    track(mlflow_uri, folder)
    assert (folder / EVENTS).read_text().count('"metric"') == metrics
    check_everything_arrived_once(mlflow_uri, folder)


def test_numbers_are_there_while_the_run_goes_on(mlflow_uri: str, tmp_path: Path) -> None:
    tracker = open_tracker(f"mlflow:{mlflow_uri}", tmp_path, pytest.fail)
    tracker.emit(Fact("metric", "training/loss", 0.5, 1))
    end = time.monotonic() + 30
    while Spool(tmp_path).unsent(f"mlflow:{mlflow_uri}") and time.monotonic() < end:
        time.sleep(0.1)
    _, run = run_of(mlflow_uri, tmp_path)
    assert (run.info.status, run.data.metrics) == ("RUNNING", {"training/loss": 0.5})
    tracker.close()


@pytest.mark.parametrize(
    ("error", "tags", "state"),
    [
        (SpeedupError("too fast"), {"status": "failed", "error": "too fast", "exit_code": "3"}, "FAILED"),
        (ValueError("secret"), {"status": "failed", "error": "ValueError", "exit_code": "1"}, "FAILED"),
        (KeyboardInterrupt(), {"status": "interrupted", "error": ""}, "KILLED"),
    ],
)
def test_a_run_that_ends_badly_says_how(
    mlflow_uri: str, tmp_path: Path, error: BaseException, tags: dict[str, str], state: str
) -> None:
    def work() -> dict[str, Any]:
        raise error

    with pytest.raises(type(error)):
        follow_run(open_tracker(f"mlflow:{mlflow_uri}", tmp_path, pytest.fail), CONFIG, work)
    _, run = run_of(mlflow_uri, tmp_path)
    assert run.info.status == state
    assert tags.items() <= run.data.tags.items()


@pytest.mark.slow
def test_a_server_that_is_down_gets_everything_later_and_once(mlflow_uri: str, tmp_path: Path) -> None:
    folder = finished_folder(tmp_path / "run")
    start = time.monotonic()
    down = f"http://127.0.0.1:{free_port()}"
    warnings = track(down, folder)
    assert time.monotonic() - start < 25
    count = len(Spool(folder).unsent(f"mlflow:{down}"))
    assert count == len((folder / EVENTS).read_text().splitlines()) - 1 > 700
    assert f"{count} events are not sent" in warnings[-1]

    sent = [resend(tmp_path, "--to", f"mlflow:{mlflow_uri}", code=0)["sent"] for _ in range(2)]
    assert sent == [count, 0]
    check_everything_arrived_once(mlflow_uri, folder)
    assert resend(tmp_path, code=0)["to"] == f"mlflow:{mlflow_uri}"  # where it was sent last

    (folder / SENT).unlink()  # as if no answer had come back for what arrived
    assert resend(tmp_path, "--to", f"mlflow:{mlflow_uri}", code=0)["sent"] == count
    check_everything_arrived_once(mlflow_uri, folder)


def test_resending_to_a_server_that_is_down_fails_and_says_so(tmp_path: Path) -> None:
    finished_folder(tmp_path / "run")
    Spool(tmp_path / "run").add(Fact("tag", "stage", "probe"))
    result = resend(tmp_path, "--to", f"mlflow:http://127.0.0.1:{free_port()}", code=7)
    assert "does not answer" in result["error"]


def test_resending_what_was_not_tracked_says_how_to_track_it(tmp_path: Path) -> None:
    finished_folder(tmp_path / "run")
    assert "pipeline report run --track" in resend(tmp_path, code=2)["error"]


def resend(folder: Path, *arguments: str, code: int) -> Any:
    result = pipeline("track", "--resend", "run", "--json", *arguments, cwd=folder)
    assert result.returncode == code, result.stderr
    return json.loads(result.stdout)


@contextmanager
def http_server(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_refuses_the_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "someone")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    folder = finished_folder(tmp_path / "run")
    asked: list[str] = []

    def refuse(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.headers["Authorization"])
        request.send_response(401)
        request.end_headers()

    with http_server(refuse) as uri:
        first, last = track(uri, folder)
    assert asked
    assert asked[0].startswith("Basic ")
    assert "refuses the credentials" in first
    assert "events are not sent" in last
    written = "".join(path.read_text() for path in folder.iterdir() if path.is_file()) + first + last
    assert "hunter2" not in written
    assert asked[0].split()[1] not in written


def test_a_server_that_never_answers_costs_the_run_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    done = threading.Event()
    with http_server(lambda request: done.wait(60) and None) as uri:
        warnings: list[str] = []
        tracker = open_tracker(f"mlflow:{uri}", tmp_path, warnings.append)
        start = time.monotonic()
        for step in range(200):
            tracker.emit(Fact("metric", "training/loss", 0.5, step))
        assert time.monotonic() - start < 10
        tracker.close()
        assert time.monotonic() - start < 25
        done.set()
    assert len(Spool(tmp_path).unsent(f"mlflow:{uri}")) == 200
    assert "200 events are not sent" in warnings[-1]


@pytest.mark.parametrize("given", [True, False])
def test_credentials_in_the_uri_are_refused_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: bool
) -> None:
    uri = "http://someone:hunter2@127.0.0.1:1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        open_tracker(f"mlflow:{uri}" if given else "mlflow", tmp_path, pytest.fail)
    assert "hunter2" not in str(refused.value)


@pytest.mark.slow
def test_the_command_goes_on_without_its_server(mlflow_uri: str, tmp_path: Path) -> None:
    command = ("probe", "--runtime", "onnxruntime", "--out", "run", "--json", "--track")
    first = pipeline(*command, f"mlflow:http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "pipeline track --resend run" in first.stderr
    second = pipeline(*command, f"mlflow:{mlflow_uri}", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert json.loads(second.stdout)["status"] == "done"
    _, run = run_of(mlflow_uri, tmp_path / "run")
    assert run.data.tags["status"] == "done"
    assert run.data.metrics["probe/promise.onnxruntime"] > 0
    assert run.data.metrics["stage_seconds/probe"] > 0

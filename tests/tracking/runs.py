"""A tracked run as the server has it, beside what the run folder's spool says."""

from pathlib import Path
from typing import Any

from pipeline.tracking.mlflow_tracker import IDENTITY
from pipeline.tracking.spool import Spool


def run_of(uri: str, folder: Path) -> tuple[Any, Any]:
    """A client, and the only run of the folder's spool."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("spdy-edge").experiment_id
    (found,) = client.search_runs([experiment], f"tags.`{IDENTITY}` = '{Spool(folder).id}'")
    return client, found


def check_everything_arrived_once(uri: str, folder: Path, status: str = "certified", exit_code: int = 0) -> None:
    """Every event of the spool is on the server, once, and so are the run's end and its files."""
    client, run = run_of(uri, folder)
    events = Spool(folder).unsent("nobody has had anything")
    for name in {event.fact.name for event in events if event.fact.kind == "metric"}:
        told = sorted((e.fact.step, e.fact.value, e.time_ms) for e in events if e.fact[:2] == ("metric", name))
        history = client.get_metric_history(run.info.run_id, name)
        assert sorted((m.step, m.value, m.timestamp) for m in history) == told
    tags = run.data.tags
    assert (run.info.status, tags["status"], tags["exit_code"]) == ("FINISHED", status, str(exit_code))
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        *("bundle", "report.html", "report.md", "report.json")
    }

"""Events → an MLflow run, found again by the spool's identity whenever sending goes on."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracking.events import Event, Tracker, Untracked
from pipeline.tracking.mlflow_server import SCHEME, connect, experiment_id, explain, parse_destination, resolve_uri
from pipeline.tracking.sender import SpooledTracker
from pipeline.tracking.spool import Spool

if TYPE_CHECKING:
    from mlflow import MlflowClient

IDENTITY = "spdy_edge.spool"
"""Tag that says which run folder's events a run on the server holds."""
MOST_AT_ONCE = 100
"""Events a request; the server takes no more parameters or tags."""
STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


def open_tracker(track: str | None, folder: Path, warn: Callable[[str], None]) -> Tracker:
    """What follows the run in ``folder``: ``mlflow`` or ``mlflow:URI``, nothing for None.

    Raises:
        ConfigError: another destination, or credentials in its URI.
        RuntimeMissingError: MLflow is not installed.
    """
    if track is None:
        return Untracked()
    return SpooledTracker(spool := Spool(folder), MlflowRun(parse_destination(track), spool), warn)


class MlflowRun:
    """The run on an MLflow server that holds a spool's events.

    Sending an event twice changes nothing: parameters, tags and files are overwritten with the same, and a metric of
    the same name, step, value and time is one row in MLflow's database.

    Raises:
        ConfigError: credentials in the URI.
        RuntimeMissingError: MLflow is not installed.
    """

    def __init__(self, uri: str | None, spool: Spool) -> None:
        self._uri, self._spool = resolve_uri(uri), spool
        self.name = f"{SCHEME}:{self._uri}"

    def send(self, events: Sequence[Event]) -> int:
        """Send a file or a change of state, or numbers and words up to the next of those.

        Raises:
            UserError: the server cannot be reached, or refuses.
        """
        try:
            return self._send(events)
        except Exception as error:  # MLflow passes on what its stores and requests raise
            raise explain(error, self._uri) from error

    @cached_property
    def run_id(self) -> str:
        """The run's id on the server; made there if the server has none for this spool."""
        experiment = experiment_id(self._client)
        found = self._client.search_runs([experiment], f"tags.`{IDENTITY}` = '{self._spool.id}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        name = self._spool.folder.resolve().name
        return str(self._client.create_run(experiment, tags={IDENTITY: self._spool.id}, run_name=name).info.run_id)

    @cached_property
    def _client(self) -> "MlflowClient":
        return connect(self._uri)

    def _send(self, events: Sequence[Event]) -> int:
        first = events[0]
        if first.fact.kind == "artifact":
            self._send_artifact(first.fact.name)
            return 1
        if first.fact.kind == "state":
            self._send_state(first)
            return 1
        batch = events[:MOST_AT_ONCE]
        ends = (at for at, event in enumerate(batch) if event.fact.kind in ("artifact", "state"))
        batch = batch[: next(ends, len(batch))]
        self._send_batch(batch)
        return len(batch)

    def _send_batch(self, events: Sequence[Event]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        def of(kind: str) -> list[Event]:
            return [event for event in events if event.fact.kind == kind]

        self._client.log_batch(
            self.run_id,
            metrics=[Metric(e.fact.name, float(e.fact.value), e.time_ms, e.fact.step) for e in of("metric")],
            params=[Param(e.fact.name, str(e.fact.value)) for e in of("param")],
            tags=[RunTag(e.fact.name, str(e.fact.value)) for e in of("tag")],
        )

    def _send_artifact(self, name: str) -> None:
        path = self._spool.folder / name
        if path.is_dir():
            self._client.log_artifacts(self.run_id, str(path), name)
        elif path.exists():  # else deleted since: there is nothing left to send
            self._client.log_artifact(self.run_id, str(path))

    def _send_state(self, event: Event) -> None:
        status = STATUS[str(event.fact.value)]
        if status == "RUNNING":
            self._client.update_run(self.run_id, status)
        else:
            self._client.set_terminated(self.run_id, status, event.time_ms)

"""Releases from the runs that an MLflow experiment holds: their bundles are brought here, checked and read."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.releases.release import Release, read_bundle
from pipeline.tracking.mlflow_server import connect, experiment_id, explain, parse_destination, resolve_uri
from targets.errors import ConfigError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


def tracked_releases(destination: str) -> list[Release]:
    """What the bundles of the experiment's runs say, oldest run first, under the runs' names.

    Args:
        destination: ``mlflow`` or ``mlflow:URI``, as runs are tracked to.

    Raises:
        ConfigError: no such destination, refused credentials, or no run with a bundle.
        RuntimeMissingError: the server does not answer, or MLflow is not installed.
        ArtifactError: a bundle is altered.
    """
    uri = resolve_uri(parse_destination(destination))
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    try:
        client = connect(uri)
        runs = client.search_runs([experiment_id(client)], order_by=["attributes.start_time ASC"])
        releases = [_read(client, run) for run in runs if _has_bundle(client, run)]
    except (MlflowException, RequestException) as error:
        raise explain(error, uri) from None
    if not releases:
        raise ConfigError(f"The experiment at {uri} has no run with a bundle: track one with --track {destination}.")
    return releases


def _has_bundle(client: "MlflowClient", run: "Run") -> bool:
    return any(file.path == "bundle" for file in client.list_artifacts(run.info.run_id))


def _read(client: "MlflowClient", run: "Run") -> Release:
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(client.download_artifacts(run.info.run_id, "bundle", folder))
        return read_bundle(bundle, name=str(run.info.run_name))

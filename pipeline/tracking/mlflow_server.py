"""MLflow's client as we use it: which server, impatient, silent, and with errors that say what to do.

Credentials are MLflow's own business: it reads them from its environment variables, and nothing of ours does.
"""

import importlib.util
import logging
import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from targets.errors import ConfigError, RuntimeMissingError, UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient

SCHEME = "mlflow"
EXPERIMENT = "spdy-edge"
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; MLflow's two minutes would outlast whole stages
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # who sends decides when to try again
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a run tells nobody but the server that was named
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output belongs to --json
}
"""Defaults of ours for MLflow's environment variables; the user's win."""


def parse_destination(text: str) -> str | None:
    """The URI in ``mlflow:URI``; None for ``mlflow`` alone, which leaves it to MLflow's own settings.

    Raises:
        ConfigError: something else, or credentials in the URI.
    """
    scheme, colon, uri = text.partition(":")
    if scheme != SCHEME or bool(colon) != bool(uri):
        # What is wrong may hold a password: it is not repeated.
        raise ConfigError("Runs are tracked to mlflow or mlflow:URI, such as --track mlflow:http://127.0.0.1:5000.")
    check_uri(uri)
    return uri or None


def check_uri(uri: str) -> None:
    """Refuse what would end in files and logs, and what cannot be a server.

    Raises:
        ConfigError: credentials in the URI, or no host where there must be one.
    """
    try:
        parts = urlsplit(uri)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        raise ConfigError("The URI of the MLflow server is none: say, for example, http://127.0.0.1:5000.") from None
    if "@" in parts.netloc:
        raise ConfigError(
            "The URI of the MLflow server holds a user or a password, and would be written into files and logs. Leave "
            "them out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
        )
    if parts.scheme in ("http", "https") and not (parts.hostname and port_is_good):
        raise ConfigError(f"{uri} names no host; an MLflow server is, for example, http://127.0.0.1:5000.")


def resolve_uri(uri: str | None) -> str:
    """The server's URI; without one, that of MLflow's own settings.

    Raises:
        ConfigError: credentials in the URI.
        RuntimeMissingError: MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise RuntimeMissingError("MLflow is not installed: pip install 'spdy-edge[mlflow]'.")
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import get_tracking_uri

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    found = uri or get_tracking_uri()
    check_uri(found)
    return found


def connect(uri: str) -> "MlflowClient":
    """A client of the server at a URI from `resolve_uri`."""
    from mlflow import MlflowClient

    return MlflowClient(uri)


def experiment_id(client: "MlflowClient") -> str:
    """The experiment that MLFLOW_EXPERIMENT_ID or MLFLOW_EXPERIMENT_NAME says, else one of ours; made if needed."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


def _http_status(error: Exception) -> int:
    """What the server answered; 500 where it did not."""
    response = getattr(error, "response", None)
    if response is not None:  # a response that refuses is false
        return int(response.status_code)
    return int(getattr(error, "get_http_status_code", lambda: 500)())


def _cause(error: BaseException) -> BaseException:
    """What began it: MLflow wraps what its HTTP library wraps what the system said."""
    while error.__context__ is not None:
        error = error.__context__
    return error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300] or type(error).__name__


def explain(error: Exception, uri: str) -> UserError:
    """What a user can do about an error of MLflow's client."""
    status = _http_status(error)
    words = _first_line(_cause(error) if status >= 500 else error)
    if status in (401, 403):
        return ConfigError(
            f"MLflow at {uri} refuses the credentials. Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN."
        )
    if status < 500:
        return ConfigError(f"MLflow at {uri} refuses: {words}")
    return RuntimeMissingError(f"MLflow at {uri} does not answer as it should ({words}).")

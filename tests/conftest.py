"""What tests of several packages share."""

from collections.abc import Iterator

import pytest

from tests.tracking.mlflow_process import free_port, mlflow_server


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server; its start takes seconds, so that all tests share it."""
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'spdy-edge[mlflow]'")
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as uri:
        yield uri

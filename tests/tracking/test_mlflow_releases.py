"""The history of the runs that a real MLflow server holds."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.tracking.mlflow_tracker import open_tracker
from tests.command import pipeline
from tests.small_bundles import small_bundle, speedup
from tests.tracking.folder import finished_folder, follow
from tests.tracking.mlflow_process import free_port

pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'spdy-edge[mlflow]'")


def test_the_history_of_an_experiment_is_that_of_its_bundles(
    mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "releases")
    for name, created, figures in (
        ("first", "2026-03-01T12:00:00+00:00", speedup(2.99, 3.02, 3.05)),
        ("second", "2026-04-01T12:00:00+00:00", speedup(2.49, 2.52, 2.55)),
    ):
        folder = finished_folder(tmp_path / name)
        shutil.rmtree(folder / "bundle")
        small_bundle(folder / "bundle", created=created, **figures)
        follow(open_tracker(f"mlflow:{mlflow_uri}", folder, lambda _: None), folder)

    result = pipeline(
        "history", f"mlflow:{mlflow_uri}", "--json", cwd=tmp_path, environment={"MLFLOW_EXPERIMENT_NAME": "releases"}
    )

    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert [release["name"] for release in told["releases"]] == ["first", "second"]
    assert any("speedup" in regression for regression in told["regressions"])


def test_a_server_that_does_not_answer_ends_with_what_to_do(tmp_path: Path) -> None:
    result = pipeline("history", f"mlflow:http://127.0.0.1:{free_port()}", cwd=tmp_path)
    assert result.returncode == 7
    assert "does not answer" in result.stderr

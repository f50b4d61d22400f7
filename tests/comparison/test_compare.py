"""`pipeline compare` from end to end, with a latency table that is another host's, so that nothing is timed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.run_folder import RunFolder, read_json
from pipeline.setup import prepare
from profilers.latency_table import FitError, LatencyTable
from targets import environments
from tests.command import pipeline

SETTINGS = {"runtime": "deepsparse", "batch_size": 8, "threads": 1, "levels": 6, "calibration_samples": 64}


def carried_table(folder: Path) -> Path:
    """Units that take time in proportion to their work and to what is left of their weights."""
    config = RunConfig(target="auto", speedup=2, install=False, **SETTINGS)
    run = prepare(config, RunFolder(folder / "table"), Reporter(quiet=True))
    (run.runtime,) = run.candidates  # as the probe would choose
    density = np.array([level.density for level in run.levels])
    seconds = np.array([unit.work * density if unit.prunable else 0 * density for unit in run.table_units])
    seconds *= 0.9e-3 / seconds[:, 0].sum()
    error = FitError(0.0, 0.0, 0.0, 0)
    target = replace(run.target, runtime="deepsparse").to_json()
    table = LatencyTable(
        run.table_units, run.levels, seconds, 0.1e-3, 0.0, 1e-3, error, 0.01, (), "another host", target
    )
    table.save(folder / "table.json")
    return folder / "table.json"


@pytest.mark.slow
@pytest.mark.deepsparse
@pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse's environment is not installed")
def test_compare_makes_a_run_of_every_combination_and_a_page_of_them_all(tmp_path: Path) -> None:
    flags = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", value)]
    flags += ["--no-install", "--latency-table", carried_table(tmp_path)]
    flags += ["--evaluations", 24, "--correction-passes", 1, "--criterion", "magnitude", "--solver", "blocked"]
    command = ("compare", "out", "--speedup", "2,9.5", "--allocator", "spdy-evolution,uniform", *flags, "--json")
    result = pipeline(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["rows"]
    assert [(row["speedup"], row["allocator"]) for row in rows] == [
        (2.0, "spdy-evolution"),
        (2.0, "uniform"),
        (9.5, "spdy-evolution"),
        (9.5, "uniform"),
    ]
    assert all(row["measured_speedup"] == pytest.approx(2 * 1.03, rel=0.02) for row in rows[:1])
    assert all(row["accuracy"] > 0.5 for row in rows[:2])
    assert all("unreachable" in row["why_not"] for row in rows[2:])
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert "spdy-evolution" in page
    assert "unreachable" in (tmp_path / "out" / "comparison.md").read_text()
    first, second = (tmp_path / "out" / f"2x-{name}-magnitude-blocked" for name in ("spdy-evolution", "uniform"))
    same = [path.name for path in (first / "database").iterdir() if path.samefile(second / "database" / path.name)]
    assert len(same) > 5, "the database was made once"
    phases = {row[3] for row in read_json(first / "plan.json")["search"]["trace"]}
    assert "evolution" in phases
    again = pipeline(*command, cwd=tmp_path)
    assert json.loads(again.stdout)["rows"] == rows

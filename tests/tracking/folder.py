"""A finished run folder, and a run through it: each stage was found done, and tells what its files hold."""

from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.releases.bundle import write_bundle
from pipeline.tracking.events import Tracker
from pipeline.tracking.following import follow_run, follow_stage
from tests.reports.run_folder import realistic_files, write_run_folder

STAGES = ("probe", "profile", "calibrate", "database", "search", "prune", "export", "certify", "compare", "report")
CONFIG = RunConfig(speedup=3.0, epochs=6, track="mlflow")


def finished_folder(folder: Path) -> Path:
    """Records of a run as its stages leave them, a report and a bundle."""
    files = realistic_files()
    files["correction"]["history"] = [{"step": i + 1, "loss": 1 / (i + 1), "block_error": 0.5} for i in range(30)]
    files["training"]["history"] = [
        {"epoch": i, "loss": 0.5 / (i + 1), "accuracy": 0.8 + i / 100, "sparsity": i / 6} for i in range(6)
    ]
    files["training"]["accuracy"] = 0.87
    write_run_folder(folder, files)
    for name in ("report.html", "report.md", "report.json"):
        (folder / name).write_text(name)
    write_bundle(folder / "bundle", {"plan.json": folder / "plan.json"}, {"status": "certified"})
    return folder


def follow(tracker: Tracker, folder: Path) -> dict[str, Any]:
    """A run that finds every stage done, and ends certified."""

    def work() -> dict[str, Any]:
        for stage in STAGES:
            follow_stage(tracker, folder, stage, lambda: None)
        return {"status": "certified", "exit_code": 0}

    return follow_run(tracker, CONFIG, work)

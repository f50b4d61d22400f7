"""Runs of the embedded network that tests work on without a stage before."""

from pathlib import Path
from typing import Any

from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.context import Run
from pipeline.run_folder import RunFolder
from pipeline.setup import open_folder, prepare


def opened_run(folder: Path, **settings: Any) -> Run:
    """A run on onnxruntime whose folder is there and whose runtime is chosen; channels unless told otherwise."""
    config = RunConfig(**{"speedup": 2, "runtime": "onnxruntime", "families": "channel"} | settings)
    run = prepare(config, RunFolder(folder), Reporter(quiet=True))
    open_folder(run)
    run.runtime = run.candidates[0]
    return run

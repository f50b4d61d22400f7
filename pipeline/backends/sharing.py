"""What runs of one network share, so that it is made once."""

import shutil
from collections.abc import Sequence

from pipeline.planning.measuring import LOG as MEASUREMENTS
from pipeline.run_folder import RunFolder

SHARED = {
    "probe": ["capability.json"],
    "dense": ["dense.onnx"],
    "profile": ["latency_table.json"],
    "calibrate": ["calibration.json"],
    "database": ["database"],
}
"""Stages whose files other runs can use, where they were made from the same settings."""


def share(own: RunFolder, earlier: RunFolder, stages: Sequence[str]) -> None:
    """Take over stages of an earlier run folder, and every measurement; keys say what of it is of use."""
    log, found = own.file(MEASUREMENTS), earlier.file(MEASUREMENTS)
    if found.exists() and not log.exists():
        shutil.copy2(found, log)
    for stage in stages:
        own.take_over(earlier, stage, SHARED[stage])

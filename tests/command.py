"""The command `pipeline` as a user runs it: a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PIPELINE = (str(Path(sys.executable).with_name("pipeline")),)
LITTLE = (sys.executable, "-P", str(Path(__file__).with_name("quick_runs.py")))
"""The same with as few measurements as each step can do with."""


def pipeline(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None, program: Sequence[str] = PIPELINE
) -> subprocess.CompletedProcess[str]:
    """Run to the end; nothing is checked."""
    return subprocess.run(
        [*program, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )


def start(*arguments: object, cwd: Path, program: Sequence[str] = PIPELINE) -> "subprocess.Popen[str]":
    """Start, with standard error to read line by line."""
    return subprocess.Popen(
        [*program, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

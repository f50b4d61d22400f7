"""The command `pipeline` as a user runs it: a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PIPELINE = Path(sys.executable).with_name("pipeline")


def pipeline(
    *arguments: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to the end; nothing is checked."""
    return subprocess.run(
        [str(PIPELINE), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=2400,
        check=False,
    )


def start(*arguments: object, cwd: Path) -> "subprocess.Popen[str]":
    """Start, with standard error to read line by line."""
    return subprocess.Popen(
        [str(PIPELINE), *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

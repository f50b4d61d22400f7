"""A user's command that starts several processes, such as ``accelerate launch --num_processes 4``."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from targets.errors import ConfigError

PATIENCE_S = 40.0
"""For a launcher to end its processes, which have sessions of their own; torch gives them 30 s."""


def find_launcher(text: str) -> list[str]:
    """The command's words, the program by its path: beside this interpreter, or on PATH.

    Raises:
        ConfigError: there is no such program.
    """
    program, *arguments = shlex.split(text)
    found = shutil.which(program, path=_path())
    if found is None:
        raise ConfigError(f"--launcher: there is no program {program} here. Give the path of an installed one.")
    return [found, *arguments]


def run_launcher(command: Sequence[str]) -> int:
    """Exit code of a command; what it prints goes to standard error. It does not outlive this process's interest."""
    process = subprocess.Popen(command, stdout=2, env=os.environ | {"PATH": _path()})
    try:
        return process.wait()
    except BaseException:  # Ctrl-C and the like: killed, it would leave its processes behind
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _path() -> str:
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])

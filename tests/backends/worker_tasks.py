"""Functions that workers import."""

import os
import signal
from pathlib import Path


def square(number: int) -> int:
    return number * number


def square_once_killed(number: int, folder: str, deadly: int) -> int:
    """Leaves a mark for every call; the process that gets the deadly number first dies of it."""
    marks = Path(folder)
    (marks / f"{number}-{len(list(marks.glob(f'{number}-*')))}").touch()
    if number == deadly and not (marks / "died").exists():
        (marks / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number

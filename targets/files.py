"""Writing files so that a killed run, a full disk or a power cut leaves them whole or absent."""

import os
from pathlib import Path

LEFT = ".*.tmp"
"""What a process that is killed while it writes leaves beside the file."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path`` and rename it; folders are made as needed.

    Raises:
        OSError: the disk is full or cannot be written; nothing is left of the attempt.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

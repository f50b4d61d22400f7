"""Writing files so that a killed run leaves them whole or absent."""

import os
from pathlib import Path

from targets.errors import ConfigError


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` to a temporary name beside ``path`` and rename it; folders are made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_where_asked(path: Path, text: str) -> None:
    """Write ``text`` to a file that the user named.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror or error}. Name another file.") from None

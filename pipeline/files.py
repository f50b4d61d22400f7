"""Writing files that a user named."""

from pathlib import Path

from targets.errors import ConfigError
from targets.files import write_atomically


def write_where_asked(path: Path, text: str) -> None:
    """Write ``text`` to a file that the user named.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror or error}. Name another file.") from None

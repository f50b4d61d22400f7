"""Where image files come from: a folder or a zip file, read alike."""

import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from calibration.errors import DataError


class Source(Protocol):
    """Files under a root, named by paths with forward slashes."""

    root: Path

    def members(self) -> Iterator[str]:
        """Paths of all files and, with a slash behind them, all folders."""

    def read(self, member: str) -> bytes:
        """Content of one file; may be called from several threads at once.

        Raises:
            DataError: the file cannot be read.
        """


class FolderSource:
    """Files of a folder.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path):
        self.root = root

    def members(self) -> Iterator[str]:
        """Paths of all files and folders, links followed but for those back to a folder that they are in."""
        for found, folders, files in os.walk(self.root, followlinks=True):
            here = Path(found)
            above = {os.path.realpath(folder) for folder in (here, *here.parents)}
            folders[:] = [name for name in folders if os.path.realpath(here / name) not in above]
            inside = here.relative_to(self.root)
            yield from ((inside / name).as_posix() + "/" for name in folders)
            yield from ((inside / name).as_posix() for name in files)

    def read(self, member: str) -> bytes:
        """Content of one file."""
        try:
            return (self.root / member).read_bytes()
        except OSError as error:
            raise DataError(f"{self.root / member} cannot be read: {error.strerror}") from error


class ZipSource:
    """Files of a zip file, whose one handle is shared under a lock.

    Args:
        root: the zip file.

    Raises:
        DataError: the file is no zip file.
    """

    def __init__(self, root: Path):
        self.root = root
        self._lock = threading.Lock()
        try:
            self._zip = zipfile.ZipFile(root)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DataError(f"{root} cannot be read as a zip file: {error}. Copy or download it again") from error

    def members(self) -> Iterator[str]:
        """Paths of all files and folders."""
        yield from self._zip.namelist()

    def read(self, member: str) -> bytes:
        """Content of one file."""
        try:
            with self._lock:
                return self._zip.read(member)
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
            raise DataError(f"{self.root} is broken at {member}: {error}. Copy or download it again") from error


def open_source(data: Path) -> Source:
    """The folder or zip file at ``data``.

    Raises:
        DataError: nothing is there, or neither of the two.
    """
    if not data.exists():
        raise DataError(f"There is no data at {data}. Give a folder or zip file with train/<class>/ and test/<class>/")
    return FolderSource(data) if data.is_dir() else ZipSource(data)

"""The run folder: one file an arrow between stages, whole or not there, and what was done with which inputs."""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from profilers.machine import peak_rss_bytes
from targets.errors import ArtifactError, ConfigError
from targets.files import write_atomically

SCHEMA = 1


def digest(*parts: Any) -> str:
    """SHA-256 over JSON of all parts: the key of a stage that depends on them and on nothing else."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write JSON: a reader never sees half a file."""
    write_atomically(path, json.dumps(data, indent=1).encode())


def read_json(path: Path) -> Any:
    """Read JSON of an earlier stage.

    Raises:
        ArtifactError: the file is missing or broken.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"Cannot read {path}: {error}. Delete it to have its stage run again.") from None


class RunFolder:
    """A folder that holds one run; every stage's result is recorded with the key of what went into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "run.json"

    def file(self, name: str) -> Path:
        """Path of a file or folder in the run folder."""
        return self.path / name

    def stored_config(self) -> dict[str, Any] | None:
        """The configuration that the folder was made with, if it holds a run."""
        if not self.record.exists():
            return None
        record = read_json(self.record)
        if record.get("schema") != SCHEMA:
            raise ArtifactError(f"{self.record} was written by another version; use another --out.")
        config: dict[str, Any] = record["config"]
        return config

    def open(self, config: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Create the folder's record, or keep the one that is there."""
        self._make()
        if not self.record.exists():
            write_json(self.record, {"schema": SCHEMA, "config": config, "stages": {}, "stage_seconds": {}, **details})

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".lock").touch()
        except OSError as error:
            raise ConfigError(f"Cannot make the run folder {self.path}: {error}. Choose another with --out.") from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process.

        Raises:
            ConfigError: another process works on it, or it cannot be made or written to.
        """
        self._make()
        with (self.path / ".lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                raise ConfigError(
                    f"Another run works on {self.path} (process {file.read().strip() or 'unknown'}). "
                    "Wait for it, or choose another --out."
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def stage(self, name: str, key: str, outputs: list[str], work: Callable[[], None]) -> bool:
        """Do a stage's work unless its outputs are there and came from the same inputs; say whether it was done."""
        record = read_json(self.record)
        if record["stages"].get(name) == key and all(self.file(output).exists() for output in outputs):
            return False
        start = time.perf_counter()
        work()
        record = read_json(self.record)
        record["stages"][name] = key
        record["stage_seconds"][name] = time.perf_counter() - start
        record.setdefault("stage_peak_bytes", {})[name] = peak_rss_bytes()
        write_json(self.record, record)
        return True

    def take_over(self, earlier: "RunFolder", name: str, outputs: list[str]) -> None:
        """Share a stage's outputs with another folder that has done it; its key says whether they are of use here.

        Files are linked: they are never written in place, only replaced.
        """
        record, other = read_json(self.record), read_json(earlier.record)
        if name not in other["stages"] or any(self.file(output).exists() for output in outputs):
            return
        for output in outputs:
            source, target = earlier.file(output), self.file(output)
            if source.is_dir():
                shutil.copytree(source, target, copy_function=os.link)
            else:
                os.link(source, target)
        record["stages"][name] = other["stages"][name]
        write_json(self.record, record)

    def forget(self, name: str) -> None:
        """Have a stage run again."""
        record = read_json(self.record)
        record["stages"].pop(name, None)
        write_json(self.record, record)


class Log:
    """Results that are kept line by line, so that a killed stage loses only the one it was working on.

    Lines belong to a key; a log of another key is started afresh. A line that was cut off is ignored.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._entries: dict[str, Any] = {}
        self._torn = False  # the file ends in half a line
        if path.exists():
            text = path.read_text()
            lines, self._torn = text.splitlines(), not text.endswith("\n")
            if lines and lines[0] == key:
                for line in lines[1:]:
                    try:
                        name, value = json.loads(line)
                    except ValueError:
                        continue
                    self._entries[name] = value
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(key + "\n")

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Any:
        return self._entries[name]

    def __len__(self) -> int:
        return len(self._entries)

    def values(self) -> list[Any]:
        """Every result, in the order in which they came."""
        return list(self._entries.values())

    def names(self) -> list[str]:
        """Of every result, in the order in which they came."""
        return list(self._entries)

    def keep(self, names: Iterable[str]) -> None:
        """Forget every other result."""
        self._entries = {name: self._entries[name] for name in names}
        lines = [self.key, *(json.dumps([name, value]) for name, value in self._entries.items())]
        write_atomically(self.path, "".join(line + "\n" for line in lines).encode())
        self._torn = False

    def add(self, name: str, value: Any) -> None:
        """Keep one result."""
        self._entries[name] = value
        with self.path.open("a") as file:
            file.write("\n" * self._torn + json.dumps([name, value]) + "\n")
        self._torn = False

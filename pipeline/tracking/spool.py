"""The spool: every event of a run, line by line in its folder, and how many of them each destination has.

An event is first written here and then sent, so that neither a lost server nor a killed run loses one.
"""

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from pipeline.run_folder import read_json, write_json
from pipeline.tracking.events import Event, Fact
from targets.errors import ArtifactError

SCHEMA = 1
EVENTS, SENT = "tracking.jsonl", "tracking.json"


class Spool:
    """Events of the run in ``folder``; may be used by several threads of one process.

    Raises:
        ArtifactError: the folder's spool was written by another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path, self._sent_path = folder / EVENTS, folder / SENT
        self._lock = Lock()
        self._torn = False  # the file ends in half a line
        self._events: list[Event] = []
        self._latest: dict[tuple[str, str, int], str | float] = {}
        self.id = uuid.uuid4().hex
        if self._path.exists():
            self._read()

    @property
    def last_destination(self) -> str | None:
        """Where the folder's events were sent or were to be sent last."""
        destination: str | None = self._sent()["last"]
        return destination

    def add(self, fact: Fact) -> bool:
        """Keep a fact, unless it is what was last told under its name and step; say whether it was kept."""
        slot = (fact.kind, fact.name, fact.step)
        with self._lock:
            if self._latest.get(slot) == fact.value:
                return False
            event = Event(fact, time.time_ns() // 1_000_000)
            self._write([event.time_ms, *fact])
            self._remember(event)
        return True

    def unsent(self, destination: str) -> Sequence[Event]:
        """Events that ``destination`` does not have, in the order in which they happened."""
        sent = self._sent()["sent"].get(destination, 0)
        with self._lock:
            return self._events[sent:]

    def mark_sent(self, destination: str, count: int) -> None:
        """``destination`` has taken the next ``count`` events; 0 says that they are to go there."""
        state = self._sent()
        state["sent"][destination] = state["sent"].get(destination, 0) + count
        write_json(self._sent_path, state | {"last": destination})

    def _sent(self) -> dict[str, Any]:
        empty: dict[str, Any] = {"schema": SCHEMA, "last": None, "sent": {}}
        return read_json(self._sent_path) if self._sent_path.exists() else empty

    def _read(self) -> None:
        text = self._path.read_text()
        self._torn = not text.endswith("\n")
        header, *lines = text.splitlines()
        try:
            schema, self.id = json.loads(header)
        except (ValueError, TypeError):
            raise ArtifactError(f"{self._path} is not a list of events; move it away to track this run anew.") from None
        if schema != SCHEMA:
            raise ArtifactError(f"{self._path} was written by another version; move it away to track this run anew.")
        for line in lines:
            try:
                time_ms, *fact = json.loads(line)
            except ValueError:
                continue  # cut off when the run was killed
            self._remember(Event(Fact(*fact), time_ms))

    def _remember(self, event: Event) -> None:
        self._events.append(event)
        self._latest[event.fact.kind, event.fact.name, event.fact.step] = event.fact.value

    def _write(self, line: list[Any]) -> None:
        text = "\n" * self._torn + json.dumps(line) + "\n"
        if not self._path.exists():
            text = json.dumps([SCHEMA, self.id]) + "\n" + text
        with self._path.open("a") as file:
            file.write(text)
        self._torn = False

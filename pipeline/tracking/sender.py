"""From the spool to a destination, in the background: a server that is lost, slow or refuses costs the run nothing."""

from collections.abc import Callable, Sequence
from threading import Event as Flag
from threading import Thread
from typing import Protocol

from pipeline.tracking.events import Event, Fact
from pipeline.tracking.spool import Spool

PAUSE_S = 1.0
"""From one turn of sending to the next: live for a reader, and a handful of requests for the server."""
LONGEST_PAUSE_S = 60.0
"""From one failed turn to the next, at most."""
PATIENCE_S, PATIENCE_FAILING_S = 30.0, 5.0
"""How long the end of a run waits for what is still to be sent, and where the server has just failed."""


class Destination(Protocol):
    """A place that events are sent to."""

    @property
    def name(self) -> str:
        """The same for the same place; holds no credentials."""
        ...

    def send(self, events: Sequence[Event]) -> int:
        """Send some of the first of these events, at least one; how many. What it has already changes nothing.

        Raises:
            UserError: it cannot be reached, or refuses.
        """
        ...


def drain(spool: Spool, destination: Destination) -> int:
    """Send all that the destination does not have; how many events that were.

    Raises:
        UserError: the destination cannot be reached or refuses; what it took until then is recorded.
    """
    total = 0
    while events := spool.unsent(destination.name):
        count = destination.send(events)
        spool.mark_sent(destination.name, count)
        total += count
    return total


class SpooledTracker:
    """Keeps events in a spool, and sends them in a thread of its own.

    Args:
        warn: told once when sending begins to fail, and at the end if something was not sent.
    """

    def __init__(self, spool: Spool, destination: Destination, warn: Callable[[str], None]) -> None:
        self._spool, self._destination, self._warn = spool, destination, warn
        self._something, self._closing = Flag(), Flag()
        self._failing = False
        self._thread: Thread | None = None

    def emit(self, fact: Fact) -> None:
        """Keep the fact; it is sent soon."""
        if self._spool.add(fact):
            self._something.set()
        if self._thread is None or (self._closing.is_set() and not self._thread.is_alive()):
            self._spool.mark_sent(self._destination.name, 0)
            self._closing.clear()
            self._thread = Thread(target=self._work, name="tracking", daemon=True)  # a hanging request holds no exit
            self._thread.start()

    def close(self) -> None:
        """Send the rest, within limits; what remains stays in the spool. A fact that follows begins anew."""
        if self._thread is None:
            return
        self._closing.set()
        self._something.set()
        self._thread.join(PATIENCE_FAILING_S if self._failing else PATIENCE_S)
        unsent = len(self._spool.unsent(self._destination.name))
        if unsent:
            self._warn(f"{unsent} events are not sent; they are kept: pipeline track --resend {self._spool.folder}")

    def _work(self) -> None:
        pause_s = PAUSE_S
        while True:
            self._something.wait()
            self._something.clear()
            closing = self._closing.is_set()  # asked before sending: what was told until then is sent
            succeeded = self._try()
            if closing or (self._closing.is_set() and not succeeded):
                return
            pause_s = PAUSE_S if succeeded else min(2 * pause_s, LONGEST_PAUSE_S)
            self._closing.wait(pause_s)
            if not succeeded:
                self._something.set()

    def _try(self) -> bool:
        try:
            drain(self._spool, self._destination)
        except Exception as error:  # whatever a server or its client library may do, the run goes on
            if not self._failing:
                self._warn(f"tracking goes on in the run folder alone: {error}")
            self._failing = True
            return False
        self._failing = False
        return True

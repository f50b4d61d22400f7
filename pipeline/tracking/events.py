"""What a run tells whoever follows it: plain events, and the Protocol of those who take them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

Kind = Literal["param", "metric", "tag", "artifact", "state"]
State = Literal["running", "finished", "failed", "killed"]


class Fact(NamedTuple):
    """One thing to know about a run.

    Args:
        kind: a setting, a number, a word, a file, or whether the run goes on.
        name: of the setting, number or word; of a file or folder, its path in the run folder; ``run`` for the state.
        value: a finite number for ``metric``, a `State` for ``state``, a digest for ``artifact``, else text.
        step: of a curve; evaluation, pass, epoch or round, counted from 1. 0 for what is no curve.
    """

    kind: Kind
    name: str
    value: str | float
    step: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """A fact, and when it was told, in milliseconds since 1970."""

    fact: Fact
    time_ms: int


class Tracker(Protocol):
    """Takes what a run tells. Neither method raises or waits because of a server."""

    def emit(self, fact: Fact) -> None:
        """Take one fact; telling it again changes nothing."""
        ...

    def close(self) -> None:
        """The run is over, well or not."""
        ...


def tell(tracker: Tracker, facts: Iterable[Fact]) -> None:
    """Several facts, one after another."""
    for fact in facts:
        tracker.emit(fact)


class Untracked:
    """Nobody follows."""

    def emit(self, fact: Fact) -> None:
        """Forget it."""

    def close(self) -> None:
        """Nothing to close."""

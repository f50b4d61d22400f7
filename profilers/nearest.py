"""How near the cores were while a run measured, and how much waiting for near ones is worth."""

from collections.abc import Iterable
from dataclasses import dataclass

from profilers.core_distance import NEAR

LATELY = 0.2
"""Weight of a group's rounds in what was lately seen."""
LEAST_PATIENCE = 0.1


@dataclass(slots=True)
class Nearest:
    """What was seen of the cores' distance: a machine whose cores are mostly apart is not worth much waiting.

    Args:
        seconds: the shortest ever seen, None before the first.
        near_share: of the rounds lately seen, those with the cores near each other.
    """

    seconds: float | None = None
    near_share: float = 1.0

    def saw(self, distance_s: Iterable[float | None]) -> None:
        """Take note of the distances in the rounds of a group."""
        seen = [s for s in distance_s if s is not None]
        if seen:
            self.seconds = min(seen) if self.seconds is None else min(self.seconds, *seen)
            share = sum(s <= NEAR * self.seconds for s in seen) / len(seen)
            self.near_share += LATELY * (share - self.near_share)

    @property
    def is_rule(self) -> bool:
        """Whether rounds with the cores near are more than the others, so that a group may be tried again for them."""
        return self.near_share >= 0.5

    @property
    def patience(self) -> float:
        """The part of an effort's patience that is worth while."""
        return min(1.0, max(LEAST_PATIENCE, 2 * self.near_share))

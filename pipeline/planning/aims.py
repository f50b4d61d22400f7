"""What a search aims at: the goal, and more once a certificate fell short of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.run_folder import read_json, write_json


@dataclass(frozen=True, slots=True)
class Aims:
    """The goal, then what was aimed at for it, higher and higher; kept in a file.

    Args:
        path: of the file.
        key: of what they hold for; those of another key are forgotten.
        goal: the speedup that is to be certified.
    """

    path: Path
    key: str
    goal: float

    @property
    def current(self) -> float:
        """The speedup that the search aims at."""
        return self._all()[-1]

    def raise_to(self, speedup: float) -> None:
        """Aim higher from now on, as long as it is within reach."""
        self._keep([*self._all(), speedup])

    def lower(self) -> bool:
        """Go back to what was aimed at before, where there was something."""
        *before, _ = self._all()
        if before:
            self._keep(before)
        return bool(before)

    def _all(self) -> list[float]:
        kept = read_json(self.path) if self.path.exists() else {}
        return [self.goal, *kept["raised"]] if kept.get("key") == self.key else [self.goal]

    def _keep(self, aims: Sequence[float]) -> None:
        write_json(self.path, {"schema": 2, "key": self.key, "raised": list(aims[1:])})

"""Whether what measures runs ahead of other processes."""

from collections.abc import Mapping
from dataclasses import dataclass

from targets.devices.registry import LOCAL
from targets.target import Target

BUSY = 0.25
"""Others' work on the measured cores, in cores, above which they count as busy; an idle desktop has a tenth of it."""


@dataclass(slots=True)
class Precedence:
    """What a bench learns about other processes, and what its workers ask the system for.

    A target that leaves it open has workers on this host run ahead of others once these keep the measured cores busy,
    where the system allows that: whoever measures here is there to see it. A device in production is not starved
    unless its target says so.
    """

    is_needed: bool = False

    def request(self, target: Target) -> str:
        """What a worker is to ask for: ``required``, ``if-allowed`` or nothing."""
        if target.precedence:
            return "required"
        return "if-allowed" if self.is_needed else ""

    def saw(self, machine: Mapping[str, float], target: Target) -> bool:
        """Take note of what the machine did while a group was measured; whether that is to be measured again, ahead."""
        is_open = target.precedence is None and target.host == LOCAL and not self.is_needed
        self.is_needed |= is_open and machine.get("others_cores", 0.0) > BUSY
        return is_open and self.is_needed

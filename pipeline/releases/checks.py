"""Checks of a bundle: what was asked, what was found, and what a failure means for a job."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """One check: what was asked, what was found, and the exit code that stands for its failure.

    ``noted`` is something to know that is no failure; ``skipped`` says that nothing was checked.
    """

    name: str
    status: Literal["passed", "failed", "noted", "skipped"]
    asked: str
    found: str
    exit_code: int = 0


def check(name: str, passed: bool, asked: str, found: str, exit_code: int) -> Check:
    """A check that passed, or failed with an exit code."""
    return Check(name, "passed", asked, found) if passed else Check(name, "failed", asked, found, exit_code)


def first_failure(checks: Sequence[Check]) -> int:
    """The exit code of the first check that failed, 0 if none did."""
    return next((check.exit_code for check in checks if check.status == "failed"), 0)

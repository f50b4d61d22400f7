"""Errors that a user can act on; each knows the exit code that it ends a command with."""

from typing import Any


class UserError(Exception):
    """Something that was asked for cannot be done: says what was asked, what is possible, what to do.

    Anything else that reaches the top is a bug of ours and is shown as one.

    Args:
        message: all of that, in words.
        facts: what a script may want of it, for --json.
    """

    exit_code = 2

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts


class ConfigError(UserError):
    """A flag, a configuration file or a target is wrong."""


class SpeedupError(UserError):
    """The requested speedup was missed or cannot be reached."""

    exit_code = 3


class AccuracyError(UserError):
    """The accuracy fell below the floor that was asked for."""

    exit_code = 4


class ArtifactError(UserError):
    """A file that an earlier stage or another tool wrote is altered, broken or of another kind."""

    exit_code = 5


class InconclusiveError(UserError):
    """The machine's noise swamps what was to be measured."""

    exit_code = 6


class RuntimeMissingError(UserError):
    """A runtime or its environment is missing or does not work here."""

    exit_code = 7


class UnreachableError(UserError):
    """A server does not answer, breaks off or cannot take what it is sent."""

    exit_code = 7

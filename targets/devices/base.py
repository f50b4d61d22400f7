"""What a device is to the rest: where workers run and files lie. One file an implementation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from targets.errors import UserError
from targets.host import HostFingerprint
from targets.registry import RuntimeInfo


class Device(Protocol):
    """A machine that measures: this host, or one that is reached over ssh."""

    name: str

    def host(self) -> HostFingerprint:
        """Its fingerprint."""

    def cores(self) -> int:
        """Physical cores that a worker may use there."""

    def pinned_cpus(self, threads: int) -> list[int]:
        """Logical CPUs there to pin ``threads`` threads to."""

    def runtimes(self) -> list[RuntimeInfo]:
        """The runtimes that are installed there, those that gain from sparsity first."""

    def hold(self, files: Sequence[Path]) -> list[str]:
        """Where the device has these files, sent as needed; files of earlier calls may be gone afterwards.

        Raises:
            UnreachableError: it cannot be reached, or does not take them.
        """

    def command(self, interpreter: Path, program: str) -> list[str]:
        """What starts a Python program there, with its standard input and output here."""

    def trouble(self, code: int, words: str) -> UserError | None:
        """The error, if a command's exit code and what it said tell that the way there failed, not the program."""

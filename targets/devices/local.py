"""This host."""

from collections.abc import Sequence
from pathlib import Path

from targets.host import HostFingerprint, available_cores, collect_host, pinned_cpus
from targets.registry import RuntimeInfo, installed_runtimes


class LocalDevice:
    """Workers are child processes, files lie where they are."""

    name = "local"

    def host(self) -> HostFingerprint:
        """This host's fingerprint."""
        return collect_host()

    def cores(self) -> int:
        """Physical cores that this process may use."""
        return available_cores()

    def pinned_cpus(self, threads: int) -> list[int]:
        """Logical CPUs to pin ``threads`` threads to."""
        return pinned_cpus(threads)

    def runtimes(self) -> list[RuntimeInfo]:
        """The runtimes that are installed here."""
        return installed_runtimes()

    def hold(self, files: Sequence[Path]) -> list[str]:
        """The files' own paths."""
        return [str(path) for path in files]

    def command(self, interpreter: Path, program: str) -> list[str]:
        """The interpreter itself."""
        return [str(interpreter), "-I", program]

    def trouble(self, code: int, words: str) -> None:
        """None: there is no way that could fail."""

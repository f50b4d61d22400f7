"""What runtimes were found to gain, kept for the next run on the same host: it is the same there for weeks."""

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from profilers.probe import SCHEMA, Capability, RuntimeCapability
from targets.errors import ArtifactError
from targets.registry import RuntimeInfo
from targets.target import Target

MOST_AGE_S = 7 * 24 * 3600
"""A host's firmware, kernel and neighbours change now and then."""


@dataclass(frozen=True, slots=True)
class ProbeStore:
    """One file a runtime, named by what the result holds for.

    Args:
        folder: that holds the files; it need not exist.
        host_id: of the host that was probed.
        target: with the threads and the batch size that were probed.
    """

    folder: Path
    host_id: str
    target: Target

    def find(self, info: RuntimeInfo) -> tuple[RuntimeCapability, float] | None:
        """What a runtime gained and how many seconds ago that was; None where nobody knows or it is too long ago."""
        path = self._path(info)
        try:
            age_s = time.time() - path.stat().st_mtime
            (found,) = Capability.load(path).runtimes
        except (OSError, ArtifactError):
            return None
        return (found, age_s) if 0 <= age_s <= MOST_AGE_S else None

    def keep(self, info: RuntimeInfo, found: RuntimeCapability) -> None:
        """Keep what a runtime gains, unless it is nothing: that is looked at anew, a noisy moment may have made it so.

        A folder that cannot be written to is no reason to stop: the next run probes again.
        """
        if not found.gains or found.failures:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            Capability(self.host_id, self.target.to_json(), (found,)).save(self._path(info))
        except OSError:
            return

    def forget(self, info: RuntimeInfo) -> None:
        """Have a runtime probed again."""
        self._path(info).unlink(missing_ok=True)

    def _path(self, info: RuntimeInfo) -> Path:
        how = (self.target.host, self.target.python, self.target.threads, self.target.batch_size)
        parts = (SCHEMA, self.host_id, how, info.name, info.version, info.families, str(info.interpreter))
        return self.folder / f"{info.name}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}.json"

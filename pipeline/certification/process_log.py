"""The processes of a certificate as they come, so that one that was interrupted goes on."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.certification.evidence import ProcessSamples
from pipeline.run_folder import Log
from profilers.measure import Measurement

CERTIFYING = "certifying.jsonl"
FRESH_S = 3600.0
"""A certificate that began longer ago begins anew: its interval speaks for one time, not for two days."""


class ProcessLog:
    """What a certificate's processes measured so far, and how long ago the first of them began.

    Args:
        path: of the log.
        key: of what is certified and how; a log of another key is started afresh.
        spread_s: that its processes are spread over.
    """

    def __init__(self, path: Path, key: str, spread_s: float = 0.0) -> None:
        self._log = Log(path, key)
        rows = self._log.values()
        if rows and not 0 <= time.time() - rows[0]["ended"] < FRESH_S + spread_s:
            self._log.keep([])
            rows = []
        self.processes = tuple(_process(row) for row in rows)
        self.elapsed_s = time.time() - rows[0]["ended"] if rows else 0.0

    def add(self, process: ProcessSamples) -> None:
        """Keep what one more process measured."""
        self._log.add(f"process {len(self._log)}", {"ended": time.time(), **asdict(process)})

    def forget(self) -> None:
        """The certificate is there."""
        self._log.keep([])


def _process(row: Mapping[str, Any]) -> ProcessSamples:
    null = row["null"] and Measurement.from_json(row["null"])
    return ProcessSamples(Measurement.from_json(row["compressed"]), null)

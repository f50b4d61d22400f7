"""The certificate: what was measured, how sure it is, and everything needed to measure it again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.run_folder import write_json
from profilers.statistics import Interval

SCHEMA = 1
CERTIFIED, MISSED, INCONCLUSIVE = "certified", "missed", "inconclusive"
EXIT_CODES = {CERTIFIED: 0, MISSED: 3, INCONCLUSIVE: 6}


def verdict(requested: float, speedup: Interval, noise_floor: float, is_disturbed: bool = False) -> str:
    """Certified only if the whole interval reaches the request; missed only if none of it does.

    A noise floor as large as the claimed gain says that the machine, not the model, may have made the difference. A
    machine that was disturbed all the time may hide a speedup, but does not feign one.
    """
    if noise_floor >= requested - 1:
        return INCONCLUSIVE
    if speedup.low >= requested:
        return CERTIFIED
    return MISSED if speedup.high < requested and not is_disturbed else INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Certificate:
    """The statement that ships. Seconds are medians, means of those over processes; ratios are of runs taken in turns.

    Args:
        created: when it was measured, in ISO 8601 with the time zone.
        span_s: how long the speedup was measured; its interval speaks for the machine as it was then.
        deployment: ``dense`` and ``compressed`` → what each costs in a process of its own; absent is not measured.
        disturbances: what kept the machine from its full speed, in words.
        table_host_id: host that the latency table is of, another one's where it was carried.
        ran_ahead: what measured ran ahead of other processes, some of the time at least.
        hidden_costs: name → what makes the compressed network slower than it looks, in words.
    """

    created: str
    status: str
    requested_speedup: float
    predicted_speedup: float
    measured_speedup: float
    ci_low: float
    ci_high: float
    confidence: float
    noise_floor: float
    speedup_all_rounds: Mapping[str, float]
    disturbed_fraction: float
    is_disturbed: bool
    baseline: Mapping[str, Any]
    compressed: Mapping[str, Any]
    best_dense: Mapping[str, Any]
    speedup_over_best_dense: float
    accuracy: Mapping[str, Any]
    host: Mapping[str, Any]
    target: Mapping[str, Any]
    proxy: bool
    table_host_id: str
    licence_note: str
    versions: Mapping[str, str]
    supported_fraction: float | None
    dense_times: Sequence[Mapping[str, Any]]
    span_s: float
    file_bytes: Mapping[str, int]
    deployment: Mapping[str, Mapping[str, Any]]
    disturbances: Sequence[str]
    ran_ahead: bool
    hidden_costs: Mapping[str, str]
    samples: Mapping[str, Any]
    schema: int = SCHEMA

    def save(self, path: Path) -> None:
        """Write the certificate as JSON, whole or not at all."""
        write_json(path, asdict(self))

"""Whole runs of the pipeline with as few measurements as each step can do with: in this process, or as a program."""

import sys
from functools import partial
from typing import NamedTuple

import pytest

from pipeline.certification.evidence import Protocol
from pipeline.cli import main
from pipeline.verifying.verify import VerifyOptions
from profilers.measure import Effort

QUICK = Effort(warmups=1, rounds=5, seconds=0.1, compilations=1, patience_s=0.0, timeout_s=120)
SETTINGS = (
    *("--levels", 4, "--plans", 12, "--evaluations", 1, "--calibration-samples", 32, "--correction-passes", 1),
    *("--criterion", "magnitude", "--allocator", "spdy", "--batch-size", 16, "--no-compare"),
)


def measure_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer processes and rounds, and the first plan is taken: what runs is the same, what it finds is rough."""
    for name in (
        "planning.measuring.DENSE_PROCESSES",
        "planning.measuring.CHECK_PROCESSES",
        "planning.plain_plans.PROCESSES",
        "comparison.nncf_int8.PROCESSES",
    ):
        monkeypatch.setattr(f"pipeline.{name}", 2)
    for name in (
        "pipeline.planning.measuring.PLAN_PROCESSES",
        "pipeline.certification.baseline.VISITS",
        "profilers.deployment.VISITS",
    ):
        monkeypatch.setattr(name, 1)
    for name in (
        "planning.measuring.PROFILE",
        "planning.measuring.CHECK",
        "certification.baseline.EFFORT",
        "comparison.nncf_int8.EFFORT",
    ):
        monkeypatch.setattr(f"pipeline.{name}", QUICK)
    for name in ("planning.closed_loop.ACCEPTED", "comparison.comparing.FAST_ENOUGH"):
        monkeypatch.setattr(f"pipeline.{name}", (-1.0, 100.0))
    little = partial(Protocol, processes=2, most_processes=2, null_processes=2, effort=QUICK)
    monkeypatch.setattr("pipeline.certification.certifying.Protocol", little)
    monkeypatch.setattr("pipeline.verifying.verify.VerifyOptions", partial(VerifyOptions, protocol=little()))
    monkeypatch.setattr("pipeline.execution._aim_again", lambda _: None)  # a miss by so little is noise
    monkeypatch.setenv("COLUMNS", "400")  # tables break no sentence


class Finished(NamedTuple):
    """What a command ended with."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> int:
    """The command `pipeline`, in this process; its exit code."""
    before = sys.argv
    sys.argv = ["pipeline", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    code = ended.value.code
    return code if isinstance(code, int) else 0


def command(capture: pytest.CaptureFixture[str], *arguments: object) -> Finished:
    """The same with what it printed."""
    return Finished(run(*arguments), *capture.readouterr())


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as few:
        measure_little(few)
        main()

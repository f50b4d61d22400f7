"""Can a certificate be trusted? Many simulated ones, with recorded noise, through the code that decides.

A bench that replays recordings (benchmarks/recordings, made by benchmarks/record_noise.py) takes the place of the real
one: every process of a certificate is a recorded process of a dense network timed against itself, its two columns in
random order, so that the true ratio is exactly 1, its rounds drawn anew in blocks. Everything else is the real thing.

Asked of 200 certificates in every condition:

- of two equal networks, how many are certified at 1.05x? (at most 1% shall be)
- of one that is truly 1.5x as fast, how many are certified at 1.4x? (at least 95% shall be)
- how often does the interval hold the truth? (95% is what it says)

And of real ones, alone on the machine, beside a process that computes without a pause and beside one that does so in
bursts: of a bundle's dense network against itself at a claim of 1.05x, and of its compressed network, whose truth is
taken to be the mean of the others in its condition, at a claim below the mean of those alone as 1.4x is below 1.5x.

    python -m benchmarks.certificates                             simulated: minutes, on any machine
    python -m benchmarks.certificates --real runs/demo/bundle     8 of each kind: two hours, on a quiet machine
    python -m benchmarks.certificates --real runs/demo/bundle 4   4 of each kind

Four of each kind take turns by process, so that all of them speak for the same half hour: a shared machine's ratio
drifts within minutes (decision 38), and a mean over half an hour is no truth for an interval of two minutes of it. That
is what ``--certify-spread`` does for a single one. The same command goes on where it was interrupted, four by four.
"""

import inspect
import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Condition
from typing import Any, cast

import numpy as np

from benchmarks.record_noise import RECORDINGS, golden_bench, neighbour
from pipeline.certification import evidence
from pipeline.certification.certificate import CERTIFIED, MISSED, verdict
from pipeline.certification.evidence import Protocol, SpeedupEvidence, measure_speedup
from pipeline.releases.release import read_bundle
from pipeline.run_folder import digest, file_digest
from profilers import statistics
from profilers.measure import Bench, Candidate, Measurement
from profilers.nearest import Nearest
from profilers.precedence import Precedence
from profilers.statistics import Interval
from targets.host import collect_host
from targets.target import Target

RESULT = Path(__file__).parent / "results" / "certificates.json"
COUNT, REAL_COUNT = 200, 8
RECORDED_ROUNDS = 10
"""Of a compilation, in the recordings."""
TOGETHER = 4
"""Real certificates of each kind that take turns."""
KINDS = tuple((network, beside) for beside in ("alone", "neighbour", "bursts") for network in ("equal", "compressed"))
"""Real certificates: of which network, and beside what."""
BLOCK = 8
"""Rounds that are drawn together, as many as one turn has: a spell of noise outlasts a run."""


JUDGED_BY = [
    *(file_digest(Path(str(module.__file__))) for module in (evidence, statistics)),
    inspect.getsource(verdict),
]
"""The code that says what samples show: other code may say otherwise."""


@dataclass
class ReplayBench:
    """A bench whose noise was recorded and whose truth is known."""

    processes: Sequence[dict[str, Any]]
    true_speedup: float
    rng: np.random.Generator
    nearest: Nearest

    def measure(self, _: Candidate, groups: Sequence[Sequence[Candidate]], **_settings: Any) -> list[list[Measurement]]:
        """One process: the compressed network, then the dense one once more; ``_settings`` are a real bench's."""
        return [
            [self._draw(group[0].label, 1.0 if "again" in group[0].label else self.true_speedup)] for group in groups
        ]

    def _draw(self, label: str, speedup: float) -> Measurement:
        process = self.processes[self.rng.integers(len(self.processes))]
        count = math.ceil(len(process["samples_s"]) * min(1.0, Protocol().effort.rounds / RECORDED_ROUNDS))
        starts = self.rng.integers(len(process["samples_s"]), size=-(-count // BLOCK))
        rounds = ((starts[:, None] + np.arange(BLOCK)).ravel()[:count] % len(process["samples_s"])).tolist()
        drawn = {name: tuple(process[name][row] for row in rounds) for name in process}
        first, second = [("reference_s", "samples_s"), ("samples_s", "reference_s")][self.rng.integers(2)]
        return Measurement(
            label,
            tuple(s / speedup for s in drawn[second]),
            drawn[first],
            drawn.get("compilation", (0,) * count),
            drawn.get("distance_s", (None,) * count),
            drawn.get("waited_share", (None,) * count),
        )


def disturb(processes: Sequence[dict[str, Any]], is_burst: bool) -> list[dict[str, Any]]:
    """A recording with noise put on: synthetic, for conditions that no recording holds.

    A neighbour slows every turn by up to a half, and each process by 3% (one standard deviation) in its ratio; a burst
    slows three in ten turns to about twice their time.
    """
    rng, found = np.random.default_rng(1), []
    for process in processes:
        columns = {}
        for name in ("reference_s", "samples_s"):
            samples_s = np.asarray(process[name])
            turns = -(-len(samples_s) // BLOCK)
            burst = 1 + (rng.random(turns) < 0.3) * rng.exponential(1.0, turns)
            slowdown = burst if is_burst else rng.uniform(1, 1.5, turns) * np.exp(rng.normal(0, 0.02))
            columns[name] = (samples_s * np.repeat(slowdown, BLOCK)[: len(samples_s)]).tolist()
        found.append(columns)
    return found


def simulate(processes: Sequence[dict[str, Any]], true_speedup: float, claim: float, count: int) -> dict[str, Any]:
    """What certificates say of a network whose speedup is known."""
    rng = np.random.default_rng(0)
    found: list[dict[str, Any]] = []
    nearest = Nearest()
    for process in processes:
        nearest.saw(process.get("distance_s", ()))
    for seed in range(count):
        bench = cast(Bench, ReplayBench(processes, true_speedup, rng, nearest))
        found.append(row_of(measure_speedup(bench, Path("dense"), Path("compressed"), Protocol(), seed=seed)))
    return summarise(found, true_speedup, claim)


def row_of(evidence: SpeedupEvidence) -> dict[str, Any]:
    """What one certificate says, without its samples."""
    return {
        **asdict(evidence.speedup),
        "noise_floor": evidence.noise_floor,
        "is_disturbed": evidence.is_disturbed,
        "disturbed_fraction": evidence.disturbed_fraction,
        "processes": len(evidence.processes),
    }


def summarise(rows: Sequence[dict[str, Any]], true_speedup: float, claim: float) -> dict[str, Any]:
    intervals = [Interval(*(row[name] for name in ("value", "low", "high", "confidence"))) for row in rows]
    statuses = [
        verdict(claim, interval, row["noise_floor"], row["is_disturbed"])
        for interval, row in zip(intervals, rows, strict=True)
    ]
    return {
        "true_speedup": true_speedup,
        "claim": claim,
        "certificates": len(rows),
        "certified": statuses.count(CERTIFIED) / len(rows),
        "missed": statuses.count(MISSED) / len(rows),
        "covered": float(np.mean([interval.low <= true_speedup <= interval.high for interval in intervals])),
        "median_half_width": float(np.median([interval.half_width for interval in intervals])),
        "median_processes": float(np.median([row["processes"] for row in rows])),
    }


def real(bundle: Path, count: int) -> None:
    """Certificates of a bundle's dense network against itself and of its compressed one, by turns, on this machine."""
    deployed = read_bundle(bundle).certificate.target
    target = Target(
        name="real", vendor="any", runtime=deployed.runtime, threads=deployed.threads, batch_size=deployed.batch_size
    )
    files = {"equal": bundle / "dense.onnx", "compressed": bundle / "model.onnx"}
    about: dict[str, Any] = {
        "host": collect_host().to_json(),
        "target": target.to_json(),
        "networks_sha256": {kind: file_digest(path) for kind, path in files.items()},
        "protocol": asdict(Protocol()),
        "judged_by": JUDGED_BY,
    }
    about = json.loads(json.dumps(about))  # as it will be read
    series = read_results().get("real", [])
    same = [one for one in series if all(one.get(name) == value for name, value in about.items())]
    others = [one for one in series if one not in same]
    rows = same[0]["rows"] if same else []
    with golden_bench(bundle, target) as bench:
        while len(rows) < len(KINDS) * count:
            numbers = range(len(rows), min(len(rows) + len(KINDS) * TOGETHER, len(KINDS) * count))
            rows += certify_together(bench, files, numbers)
            write_results(real=[{**about, "summary": summarise_real(rows), "rows": rows}, *others])
            print(json.dumps(summarise_real(rows), indent=1), flush=True)


def certify_together(bench: Bench, files: dict[str, Path], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Certificates that take turns by process, one kind after the other, a row each."""
    turns = Turns(numbers)

    def certify(number: int) -> dict[str, Any]:
        kind, beside = KINDS[number % len(KINDS)]
        own = replace(bench, precedence=Precedence())  # each finds out for itself who else is there
        with turns.of(number) as pass_on, neighbour(beside) as busy:

            def end_turn(done: int, most: int) -> None:
                if busy:
                    busy.suspend()
                pass_on(done, most)
                if busy:
                    busy.resume()

            evidence = measure_speedup(
                own, files["equal"], files[kind], Protocol(), seed=1000 * number, on_process=end_turn
            )
        about = {"kind": kind, "beside": beside, "together": numbers[0], "ran_ahead": evidence.is_ahead}
        return {**about, **row_of(evidence), "span_s": evidence.span_s}

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(certify, numbers))


class Turns:
    """Threads that run one at a time, each until it passes the turn on; where one fails, the others end."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._order, self._changed, self._failed = deque(numbers), Condition(), False

    @contextmanager
    def of(self, number: int) -> Iterator[Callable[[int, int], None]]:
        """Run when it is this thread's turn; what is handed out passes it on, and says how far the thread is."""
        try:
            self._wait(number)
            yield lambda done, most: self._pass_on(number, f"certificate {number + 1}: {done} of {most} processes")
        except BaseException:
            self._failed = True
            raise
        finally:
            with self._changed:
                self._order.remove(number)
                self._changed.notify_all()

    def _pass_on(self, number: int, progress: str) -> None:
        print(progress, flush=True)
        with self._changed:
            self._order.rotate(-1)
            self._changed.notify_all()
        self._wait(number)

    def _wait(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._failed or self._order[0] == number)
            if self._failed:
                raise RuntimeError("another certificate failed")


def summarise_real(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Equal networks at a claim of 1.05x; the compressed one at a claim below the mean of those that were alone.

    Its interval is to hold the mean of the others in its own condition: ahead of others a network is not as fast as
    among them.
    """
    alone = [row for row in rows if (row["kind"], row["beside"]) == ("compressed", "alone")]
    truth = mean_speedup(alone)
    found = {}
    for kind, beside in KINDS:
        of = [row for row in rows if (row["kind"], row["beside"]) == (kind, beside)]
        if kind == "equal":
            found[f"equal, {beside}"] = summarise(of, 1.0, 1.05)
        else:
            claimed = summarise(of, truth, truth * 1.4 / 1.5)
            own = mean_speedup(of)
            covered = summarise([at_mean(row, of, own) for row in of], own, own)["covered"]
            found[f"compressed, {beside}"] = claimed | {"true_speedup": own, "covered": covered}
    return found


def mean_speedup(rows: Sequence[dict[str, Any]]) -> float:
    return float(np.exp(np.mean([np.log(row["value"]) for row in rows])))


def at_mean(row: dict[str, Any], rows: Sequence[dict[str, Any]], truth: float) -> dict[str, Any]:
    """A row as if the others that were measured together with it had the mean ``truth``."""
    others = [other for other in rows if other["together"] == row["together"] and other is not row]
    scale = truth / mean_speedup(others or [row])
    return row | {name: row[name] * scale for name in ("value", "low", "high")}


def simulate_all() -> None:
    """Every recording, and synthetic noise on a quiet one for conditions that none holds; kept row by row."""
    start = time.perf_counter()
    recorded = {file.stem: json.loads(file.read_text())["processes"] for file in sorted(RECORDINGS.glob("*.json"))}
    quiet = recorded.get("alone") or recorded["quiet"]
    missing = [kind for kind in ("neighbour", "bursts") if kind not in recorded]
    made = {f"synthetic {kind}": disturb(quiet, kind == "bursts") for kind in missing}
    done = {(row["condition"], row["claim"], row.get("key")): row for row in read_results().get("simulated", [])}
    rows = []
    for condition, processes in {**recorded, **made}.items():
        for truth, claim in ((1.0, 1.05), (1.5, 1.4)):
            key = digest(processes, truth, COUNT, asdict(Protocol()), JUDGED_BY)
            row = done.get((condition, claim, key)) or simulate(processes, truth, claim, COUNT)
            rows.append({"condition": condition, "recorded_processes": len(processes), **row, "key": key})
            write_results(simulated=rows)
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)


def read_results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    return found


def write_results(**parts: Any) -> None:
    """Replace parts of the results; the others stay."""
    part = RESULT.with_suffix(".part")
    part.write_text(json.dumps(read_results() | parts, indent=1) + "\n")
    part.replace(RESULT)


def main() -> None:
    if sys.argv[1:2] == ["--real"]:
        real(Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else REAL_COUNT)
    else:
        simulate_all()


if __name__ == "__main__":
    main()

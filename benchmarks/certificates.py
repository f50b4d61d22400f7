"""Can a certificate be trusted? Many simulated ones, with recorded noise, through the code that decides.

A bench that replays recordings (benchmarks/recordings, made by benchmarks/record_noise.py) takes the place of the real
one: every process of a certificate is a recorded process of a dense network timed against itself, its two columns in
random order, so that the true ratio is exactly 1, its rounds drawn anew in blocks. Everything else is the real thing.

Asked of 200 certificates in every condition:

- of two equal networks, how many are certified at 1.05x? (at most 1% shall be)
- of one that is truly 1.5x as fast, how many are certified at 1.4x? (at least 95% shall be, or say *inconclusive*)
- how often does the interval hold the truth? (95% is what it says)

    python -m benchmarks.certificates                             simulated: minutes, on any machine
    python -m benchmarks.certificates --real runs/demo/bundle     20 real ones: an hour, on a quiet machine
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.record_noise import RECORDINGS
from pipeline.certificate import CERTIFIED, MISSED, Protocol, SpeedupEvidence, measure_speedup, verdict
from pipeline.release import read_bundle
from profilers.measure import Bench, Candidate, Measurement, Nearest
from targets.host import collect_host
from targets.registry import get_runtime
from targets.target import Target

RESULT = Path(__file__).parent / "results" / "certificates.json"
COUNT, REAL_COUNT = 200, 20
COMPILATIONS = Protocol().effort.compilations
BLOCK = 8
"""Rounds that are drawn together, as many as one turn has: a spell of noise outlasts a run."""


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
        count = len(process["samples_s"])
        starts = self.rng.integers(count, size=-(-count // BLOCK))
        rounds = ((starts[:, None] + np.arange(BLOCK)).ravel()[:count] % count).tolist()
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
    found: list[SpeedupEvidence] = []
    nearest = Nearest()
    for process in processes:
        nearest.saw(process.get("distance_s", ()))
    for seed in range(count):
        bench = cast(Bench, ReplayBench(processes, true_speedup, rng, nearest))
        found.append(measure_speedup(bench, Path("dense"), Path("compressed"), Protocol(), seed=seed))
    return summarise(found, true_speedup, claim)


def summarise(found: Sequence[SpeedupEvidence], true_speedup: float, claim: float) -> dict[str, Any]:
    statuses = [verdict(claim, e.speedup, e.noise_floor, e.is_disturbed) for e in found]
    covered = [evidence.speedup.low <= true_speedup <= evidence.speedup.high for evidence in found]
    return {
        "true_speedup": true_speedup,
        "claim": claim,
        "certificates": len(found),
        "certified": statuses.count(CERTIFIED) / len(found),
        "missed": statuses.count(MISSED) / len(found),
        "covered": float(np.mean(covered)),
        "median_half_width": float(np.median([evidence.speedup.half_width for evidence in found])),
        "median_processes": float(np.median([len(evidence.processes) for evidence in found])),
    }


def real(bundle: Path) -> dict[str, Any]:
    """Certificates of a bundle's dense network against itself, on this machine."""
    target = read_bundle(bundle).certificate.target
    here = Target(
        name="real", vendor="any", runtime=target.runtime, threads=target.threads, batch_size=target.batch_size
    )
    bench, dense, found = Bench(get_runtime(target.runtime), here), bundle / "dense.onnx", []
    for number in range(REAL_COUNT):
        found.append(measure_speedup(bench, dense, dense, Protocol(), seed=1000 * number))
        print(f"{number + 1} of {REAL_COUNT}: {found[-1].speedup}", flush=True)
    return {"host": collect_host().to_json(), "target": here.to_json(), **summarise(found, 1.0, 1.05)}


def simulate_all() -> dict[str, Any]:
    """Every recording, and two kinds of synthetic noise on the quiet one; kept row by row."""
    rows, start = [], time.perf_counter()
    recorded = {file.stem: json.loads(file.read_text())["processes"] for file in sorted(RECORDINGS.glob("*.json"))}
    made = {f"synthetic {kind}": disturb(recorded["quiet"], kind == "bursts") for kind in ("neighbour", "bursts")}
    for condition, processes in {**recorded, **made}.items():
        for truth, claim in ((1.0, 1.05), (1.5, 1.4)):
            row = simulate(processes, truth, claim, COUNT)
            rows.append({"condition": condition, "recorded_processes": len(processes), **row})
            RESULT.write_text(json.dumps({"simulated": rows}, indent=1) + "\n")
            print(rows[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    return {"simulated": rows}


def main() -> None:
    if sys.argv[1:2] == ["--real"]:
        result = json.loads(RESULT.read_text()) | {"real": real(Path(sys.argv[2]))}
    else:
        result = simulate_all()
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Record how a machine's latencies vary: a bundle's dense network timed against itself by the real worker.

Three conditions: as the machine is; with one busy neighbour, a process that computes without a pause; with bursts, one
that computes for a tenth of a second to two seconds and pauses as long. Or take the A/A samples that a certificate
holds. What was recorded is what benchmarks/certificates.py simulates with.

    python -m benchmarks.record_noise runs/demo/bundle [alone | neighbour | bursts …]
    python -m benchmarks.record_noise runs/demo/certificate.json NAME
"""

import json
import multiprocessing
import random
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.certificate import Protocol
from pipeline.release import read_bundle
from profilers.measure import Bench, Candidate
from targets.host import collect_host
from targets.registry import get_runtime
from targets.target import Target

PROCESSES = 12
RECORDINGS = Path(__file__).with_name("recordings")
KEPT = 150
COLUMNS = ("reference_s", "samples_s", "compilation", "distance_s", "waited_share")
DISTURBED_S = 1.0
"""A single run that takes longer was stopped from outside, which belongs to no condition; its process is repeated."""


def compute(bursts: bool) -> None:
    """What the neighbour does until it is killed."""
    rng = random.Random(0)
    while True:
        end = time.perf_counter() + (rng.uniform(0.1, 2.0) if bursts else 1.0)
        while time.perf_counter() < end:
            sum(range(10_000))
        if bursts:
            time.sleep(rng.uniform(0.1, 2.0))


@contextmanager
def neighbour(condition: str) -> Iterator[None]:
    if condition == "alone":
        yield
        return
    process = multiprocessing.Process(target=compute, args=(condition == "bursts",), daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()


def record(bundle: Path, condition: str) -> None:
    certificate = read_bundle(bundle).certificate
    deployed = certificate.target
    target = Target(
        name="noise",
        vendor="any",
        runtime=deployed.runtime,
        threads=deployed.threads,
        batch_size=deployed.batch_size,
    )
    bench = Bench(get_runtime(deployed.runtime), target)
    dense, processes = Candidate("dense", bundle / "dense.onnx"), []
    with neighbour(condition):
        for seed in range(3 * PROCESSES):
            ((measured,),) = bench.measure(dense, [[dense]], seed=seed, effort=Protocol().effort)
            if measured.error or max(*measured.samples_s, *measured.reference_s) > DISTURBED_S:
                continue
            processes.append({name: rounded(getattr(measured, name)) for name in COLUMNS})
            print(f"{condition}: {len(processes)} of {PROCESSES}, A/A ratio {measured.speedup:.4f}", flush=True)
            write(condition, collect_host().to_json(), target.to_json(), processes)
            if len(processes) == PROCESSES:
                break


def from_certificate(file: Path, name: str) -> None:
    """The samples of the dense network against itself."""
    certificate = json.loads(file.read_text())
    processes = [
        {"reference_s": rounded(process["null_baseline_s"]), "samples_s": rounded(process["null_s"])}
        for process in certificate["samples"]["processes"]
        if process["null_s"]
    ]
    write(name, certificate["host"], certificate["target"], processes)


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Four digits of the first rounds: enough to simulate with."""
    return [None if value is None else float(f"{value:.4g}") for value in list(values)[:KEPT]]


def write(condition: str, host: dict[str, Any], target: dict[str, Any], processes: list[dict[str, Any]]) -> None:
    RECORDINGS.mkdir(exist_ok=True)
    data = {"condition": condition, "host": host, "target": target, "processes": processes}
    (RECORDINGS / f"{condition}.json").write_text(json.dumps(data) + "\n")


if __name__ == "__main__":
    source = Path(sys.argv[1])
    if source.is_file():
        from_certificate(source, sys.argv[2])
    else:
        for name in sys.argv[2:] or ("alone", "neighbour", "bursts"):
            record(source, name)

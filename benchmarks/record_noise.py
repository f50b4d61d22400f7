"""Record how a machine's latencies vary: a bundle's dense network timed against itself by the real worker.

Four conditions: as the machine is; with one busy neighbour, a process that computes without a pause; beside the same,
but ahead of it (``--precedence``, as root); with bursts, one that computes for a tenth of a second to two seconds and
pauses as long. Or take the A/A samples that a certificate
holds. What was recorded is what benchmarks/certificates.py simulates with. Kept process by process: the same command
goes on with an interrupted recording of the same host, target and network.

    python -m benchmarks.record_noise runs/demo/bundle [alone | neighbour | precedence | bursts …]
    python -m benchmarks.record_noise runs/demo/certificate.json NAME
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from pipeline.certification.evidence import Protocol
from pipeline.releases.release import read_bundle
from pipeline.run_folder import file_digest
from pipeline.verifying.outputs import read_golden
from profilers.measure import Bench, Candidate, save_feeds
from targets.host import collect_host
from targets.registry import get_runtime
from targets.target import Target

PROCESSES = 24
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
def neighbour(condition: str) -> Iterator[psutil.Process | None]:
    """Another process that computes as the condition says."""
    if condition == "alone":
        yield None
        return
    context = multiprocessing.get_context("spawn")  # may be one of several threads that asks
    process = context.Process(target=compute, args=(condition == "bursts",), daemon=True)
    process.start()
    try:
        yield psutil.Process(process.pid)
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
        precedence=condition == "precedence",
    )
    dense = Candidate("dense", bundle / "dense.onnx")
    about: dict[str, Any] = {
        "condition": condition,
        "host": collect_host().to_json(),
        "target": target.to_json(),
        "network_sha256": file_digest(dense.path),
    }
    about = json.loads(json.dumps(about))  # as it will be read
    processes = recorded(about)
    with golden_bench(bundle, target) as bench, neighbour(condition):
        for seed in range(len(processes), 3 * PROCESSES):
            if len(processes) == PROCESSES:
                break
            ((measured,),) = bench.measure(dense, [[dense]], seed=seed, effort=Protocol().effort)
            if measured.error or max(*measured.samples_s, *measured.reference_s) > DISTURBED_S:
                print(f"{condition}: not counted: {measured.error or 'stopped from outside'}", flush=True)
                continue
            processes.append({name: rounded(getattr(measured, name)) for name in COLUMNS})
            write(about, processes)
            print(f"{condition}: {len(processes)} of {PROCESSES}, A/A ratio {measured.speedup:.4f}", flush=True)


def recorded(about: dict[str, Any]) -> list[dict[str, Any]]:
    """Processes of an earlier recording of the same, which was interrupted."""
    path = RECORDINGS / f"{about['condition']}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    same = all(found.get(name) == value for name, value in about.items())
    processes: list[dict[str, Any]] = found["processes"] if same else []
    return processes


@contextmanager
def golden_bench(bundle: Path, target: Target) -> Iterator[Bench]:
    """A bench on this host that is fed with the bundle's golden inputs, as certificates feed real ones."""
    golden = read_golden(bundle)
    if golden is None:
        raise SystemExit(f"{bundle} has no golden inputs.")
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs.npz")
        save_feeds(inputs, golden.batch(target.batch_size))
        yield Bench(get_runtime(str(target.runtime)), target, inputs)


def from_certificate(file: Path, name: str) -> None:
    """The samples of the dense network against itself."""
    certificate = json.loads(file.read_text())
    processes = [
        {"reference_s": rounded(process["null_baseline_s"]), "samples_s": rounded(process["null_s"])}
        for process in certificate["samples"]["processes"]
        if process["null_s"]
    ]
    write({"condition": name, "host": certificate["host"], "target": certificate["target"]}, processes)


def rounded(values: Iterable[float | None]) -> list[float | None]:
    """Four digits of the first rounds: enough to simulate with."""
    return [None if value is None else float(f"{value:.4g}") for value in list(values)[:KEPT]]


def write(about: dict[str, Any], processes: list[dict[str, Any]]) -> None:
    RECORDINGS.mkdir(exist_ok=True)
    path = RECORDINGS / f"{about['condition']}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**about, "processes": processes}) + "\n")
    part.replace(path)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    if source.is_file():
        from_certificate(source, sys.argv[2])
    else:
        for name in sys.argv[2:] or ("alone", "neighbour", "precedence", "bursts"):
            record(source, name)

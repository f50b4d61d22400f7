"""The operating envelope of a bundle: its measured speedup where it was not certified, and where that falls short."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.certification.certificate import INCONCLUSIVE, MISSED, verdict
from pipeline.certification.evidence import Protocol, measure_speedup
from pipeline.envelope.isa_parity import IsaPlace, check_isas, measure_isas
from pipeline.releases.bundle import MANIFEST
from pipeline.releases.release import CertificateRecord, read_bundle
from pipeline.run_folder import Log, digest, file_digest
from pipeline.verifying.outputs import Golden, read_golden
from profilers.measure import Bench, save_feeds
from profilers.statistics import Interval
from targets.errors import ConfigError, RuntimeMissingError
from targets.host import available_cores, collect_host, pinned_cpus
from targets.registry import get_runtime
from targets.target import Target

SCHEMA = 1
QUICK = Protocol(processes=4, most_processes=12, half_width=0.03, budget_s=20.0)
"""A place of the envelope is looked at, not certified: an interval of ±3% says where it falls."""
NOT_POSSIBLE = "not possible"
BUSY = "while True: sum(range(10_000))"


@dataclass(frozen=True, slots=True)
class Place:
    """One way to use the network, and the speedup that was measured there.

    Args:
        input_size: pixels a side, or tokens, of one sample; None for the bundle's own.
        neighbour: another process computes on one of the cores without a pause.
        status: against the requested speedup, as a certificate's; ``not possible`` with the runtime's ``error``.
        latency_s: of the compressed network, the geometric mean over processes of its median.
    """

    threads: int
    batch_size: int
    neighbour: bool
    status: str
    speedup: Interval | None = None
    latency_s: float | None = None
    noise_floor: float | None = None
    error: str | None = None
    input_size: int | None = None


@dataclass(frozen=True, slots=True)
class Networks:
    """Two networks of one input size, and inputs [n, …] for them by name, in their order."""

    dense: Path
    compressed: Path
    feeds: Mapping[str, NDArray[Any]]

    def batch(self, size: int) -> dict[str, NDArray[Any]]:
        """The first ``size`` inputs, repeated where there are fewer."""
        return {name: array[np.arange(size) % len(array)] for name, array in self.feeds.items()}

    def for_batch(self, size: int, folder: Path) -> tuple[Path, Path]:
        """Files of both networks for another batch size, in ``folder``; those that there are where onnx is missing."""
        if find_spec("onnx") is None:  # some runtimes take other batches of any file
            return self.dense, self.compressed
        from pipeline.envelope.batch_sizes import write_for_batch

        dense, compressed = folder / "dense.onnx", folder / "compressed.onnx"
        for source, path in ((self.dense, dense), (self.compressed, compressed)):
            write_for_batch(source, size, path)
        return dense, compressed


@dataclass(frozen=True, slots=True)
class Envelope:
    """Every place that was measured.

    Args:
        certified: threads and batch size.
        sample_shape: of one sample of every input, as the bundle's files have it.
        isas: the certified place under older instruction sets, after the one with all that the CPU has; or none.
    """

    bundle: str
    requested_speedup: float
    runtime: str
    certified: tuple[int, int]
    sample_shape: dict[str, tuple[int, ...]]
    host: dict[str, Any]
    places: tuple[Place, ...]
    isas: tuple[IsaPlace, ...] = ()

    @property
    def short(self) -> tuple[Place, ...]:
        """Places where the speedup falls under the request."""
        return tuple(place for place in self.places if place.status == MISSED)

    def to_json(self) -> dict[str, Any]:
        """Plain data for a file."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"schema": SCHEMA} | data


def default_threads(certified: int) -> list[int]:
    """Powers of two up to the cores that there are, and the certified number."""
    cores = available_cores()
    powers = [2**k for k in range(10) if 2**k <= cores]
    return sorted({*powers, cores, min(certified, cores)})


def default_batches(certified: int) -> list[int]:
    """Powers of four up to the certified size, which is among them."""
    return sorted({*(4**k for k in range(10) if 4**k < certified), certified})


def kept_places(bundle: Path, protocol: Protocol, path: Path) -> Log:
    """Places of a bundle that this host and its runtime measured before they were interrupted; those alone.

    Raises:
        ConfigError: the file cannot be written.
    """
    runtime = get_runtime(read_bundle(bundle).certificate.target.runtime)
    measured_by = (collect_host().id, runtime.name, runtime.version, asdict(protocol))
    key = digest("envelope", file_digest(bundle / MANIFEST), measured_by)
    try:
        return Log(path, key)
    except OSError as error:
        raise ConfigError(f"Cannot write {path}: {error.strerror}. Name another place with --out.") from None


def measure_envelope(
    bundle: Path,
    *,
    threads: Sequence[int] = (),
    batches: Sequence[int] = (),
    input_sizes: Sequence[int] = (),
    neighbour: bool = True,
    isas: Sequence[str] = (),
    protocol: Protocol = QUICK,
    on_place: Callable[[int, int], None] = lambda *_: None,
    kept: Path | None = None,
) -> Envelope:
    """Measure a bundle's speedup over threads, batch and input sizes, alone and beside a busy neighbour.

    Args:
        threads: by default powers of two up to the cores; ``batches`` alike, up to the certified size.
        input_sizes: pixels a side, or tokens, beside the bundle's own, for which the run folder that it lies in
            exports both networks anew.
        isas: instruction sets that the runtime is kept to as well, at the certified place.
        protocol: how well every place is measured.
        kept: file in which places are kept as they come, and from which they are taken; it is removed in the end.

    Raises:
        ArtifactError: the bundle is altered.
        ConfigError: it has nothing to compare with or to feed it with, there are fewer cores than threads, the
            runtime cannot be kept to an instruction set, or another input size cannot be had.
        RuntimeMissingError: the certified runtime is not there.
    """
    certificate, golden = read_bundle(bundle).certificate, read_golden(bundle)
    if golden is None or not (bundle / "dense.onnx").exists():
        raise ConfigError(f"{bundle} has no dense.onnx or no golden inputs: there is nothing to measure against.")
    target = certificate.target
    every_thread = list(threads) or default_threads(target.threads)
    if max(every_thread) > available_cores():
        raise ConfigError(f"{max(every_thread)} threads were asked for; {available_cores()} cores may be used here.")
    check_isas(target.runtime, isas)
    every_batch = list(batches) or default_batches(target.batch_size)
    own = Networks(bundle / "dense.onnx", bundle / "model.onnx", golden.feeds)
    log = kept_places(bundle, protocol, kept) if kept else None
    with _networks(bundle, own, input_sizes) as networks:
        ways = list(product(networks, every_thread, every_batch, (False, True) if neighbour else (False,)))
        total = len(ways) + (len(isas) + 1 if isas else 0)
        places = []
        for number, (size, count, batch, busy) in enumerate(ways):
            on_place(number, total)
            name = json.dumps([size, count, batch, busy])
            if log is not None and name in log:
                places.append(_place_of(log[name]))
                continue
            place = Place(count, batch, busy, INCONCLUSIVE, input_size=size)
            places.append(_measure_place(networks[size], certificate, place, protocol))
            if log is not None and places[-1].status != NOT_POSSIBLE:  # which what is installed meanwhile may change
                log.add(name, asdict(places[-1]))
    limited = _measure_isas(bundle, certificate, golden, isas, protocol, lambda done: on_place(len(ways) + done, total))
    if kept:
        kept.unlink(missing_ok=True)
    return Envelope(
        str(bundle),
        certificate.requested_speedup,
        target.runtime,
        (target.threads, target.batch_size),
        {name: array.shape[1:] for name, array in golden.feeds.items()},
        collect_host().to_json(),
        tuple(places),
        limited,
    )


def _place_of(row: Mapping[str, Any]) -> Place:
    return Place(**{**row, "speedup": row["speedup"] and Interval(**row["speedup"])})


def _measure_isas(
    bundle: Path,
    certificate: CertificateRecord,
    golden: Golden,
    isas: Sequence[str],
    protocol: Protocol,
    on_place: Callable[[int], None],
) -> tuple[IsaPlace, ...]:
    if not isas:
        return ()
    target = certificate.target
    feeds = golden.batch(target.batch_size)
    with _bench(target.runtime, min(target.threads, available_cores()), target.batch_size, feeds) as bench:
        return measure_isas(
            bench,
            bundle / "dense.onnx",
            bundle / "model.onnx",
            golden,
            isas,
            requested_speedup=certificate.requested_speedup,
            protocol=protocol,
            on_place=lambda done, _: on_place(done),
        )


@contextmanager
def _networks(bundle: Path, own: Networks, input_sizes: Sequence[int]) -> Iterator[dict[int | None, Networks]]:
    """Input size → networks, the bundle's own first; the others are there as long as they are needed."""
    if not input_sizes:
        yield {None: own}
        return
    from pipeline.envelope.resizing import COMPRESSED, DENSE, export_at  # needs torch; a bundle's own size does not

    with tempfile.TemporaryDirectory() as folder:
        found: dict[int | None, Networks] = {None: own}
        for size in input_sizes:
            into = Path(folder, str(size))
            into.mkdir()
            feeds = export_at(bundle.resolve().parent, size, into)
            found[size] = Networks(into / DENSE, into / COMPRESSED, feeds)
        yield found


@contextmanager
def _bench(runtime: str, threads: int, batch_size: int, feeds: Mapping[str, NDArray[Any]]) -> Iterator[Bench]:
    """A bench on this host, fed with one batch of inputs."""
    info = get_runtime(runtime)
    target = Target(
        name="envelope", vendor="any", runtime=info.name, threads=threads, batch_size=batch_size, precedence=False
    )
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs.npz")
        save_feeds(inputs, feeds)
        yield Bench(info, target, inputs)


def _measure_place(networks: Networks, certificate: CertificateRecord, place: Place, protocol: Protocol) -> Place:
    feeds = networks.batch(place.batch_size)
    fed = _bench(certificate.target.runtime, place.threads, place.batch_size, feeds)
    busy = pinned_cpus(place.threads) if place.neighbour else ()
    with tempfile.TemporaryDirectory() as folder, fed as bench, _neighbour(busy):
        try:
            is_own = place.batch_size == certificate.target.batch_size
            own = networks.dense, networks.compressed
            files = own if is_own else networks.for_batch(place.batch_size, Path(folder))
            found = measure_speedup(bench, *files, protocol, seed=0)
        except RuntimeMissingError as error:  # such as a network that fixes its batch in ways of its own
            return replace(place, status=NOT_POSSIBLE, error=str(error).splitlines()[0])
    status = verdict(certificate.requested_speedup, found.speedup, found.noise_floor, found.is_disturbed)
    return replace(
        place, status=status, speedup=found.speedup, latency_s=found.compressed.value, noise_floor=found.noise_floor
    )


@contextmanager
def _neighbour(cpus: Sequence[int]) -> Iterator[None]:
    """Another process that computes all the time on the first of these processors, if there are any."""
    if not cpus:
        yield
        return
    process = subprocess.Popen([sys.executable, "-I", "-c", BUSY])
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, cpus[:1])
        yield
    finally:
        process.kill()
        process.wait()

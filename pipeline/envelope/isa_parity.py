"""What a bundle says, and how fast it is, where its runtime is kept to an older instruction set than this CPU has."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.certification.certificate import verdict
from pipeline.certification.evidence import Protocol, measure_speedup
from pipeline.verifying.outputs import Golden
from profilers.measure import Bench, Candidate
from profilers.statistics import Interval
from targets.errors import ConfigError
from targets.host import isa_features
from targets.registry import isa_limit

FEATURES = {"avx2": "avx2", "avx512": "avx512f"}
"""Instruction set → what a CPU with it says of itself."""
TOLERANCE = 1e-3
"""Of outputs, as a fraction of the largest: rounding stays below it, saturated int8 products do not."""
VISITS = 3


@dataclass(frozen=True, slots=True)
class IsaPlace:
    """The bundle on its runtime, kept to an instruction set.

    Args:
        isa: None for all that this CPU has.
        difference: of the golden outputs, the largest, as a fraction of the largest output.
        agrees: it is no more than rounding.
        latency_s: median in processes of its own, which take turns with those of the other instruction sets.
        slowdown: that over the latency with all that this CPU has.
        status: of ``speedup`` against the requested one, as a certificate's.
        speedup: over the dense network under the same limit.
        kernels: what those that ran call themselves; None where the runtime does not tell.
    """

    isa: str | None
    difference: float
    agrees: bool
    latency_s: float
    slowdown: float
    status: str
    speedup: Interval
    kernels: tuple[str, ...] | None


def check_isas(runtime: str, isas: Sequence[str]) -> None:
    """Whether a runtime can be kept to instruction sets here.

    Raises:
        ConfigError: it cannot, or this CPU does not have them.
    """
    for isa in isas:
        isa_limit(runtime, isa)
        if FEATURES[isa] not in isa_features():
            raise ConfigError(f"This CPU has no {isa} ({', '.join(isa_features())}). Ask for an older instruction set.")


def measure_isas(
    bench: Bench,
    dense: Path,
    compressed: Path,
    golden: Golden,
    isas: Sequence[str],
    *,
    requested_speedup: float,
    protocol: Protocol,
    on_place: Callable[[int, int], None] = lambda *_: None,
) -> tuple[IsaPlace, ...]:
    """Run and time the compressed network with all that this CPU has and under every limit.

    Args:
        bench: without a limit, fed with golden inputs.
        golden: what the compressed network said when it was certified.

    Raises:
        RuntimeMissingError: a network does not run.
    """
    model = Candidate("compressed", compressed)
    ways = [None, *isas]
    benches = [replace(bench, isa=isa) for isa in ways]
    medians_s = np.array([[_median_s(limited, model) for limited in benches] for _ in range(VISITS)])
    slowdowns = np.median(medians_s / medians_s[:, :1], axis=0)
    found = []
    for number, (isa, limited) in enumerate(zip(ways, benches, strict=True)):
        on_place(number, len(ways))
        evidence = measure_speedup(limited, dense, compressed, protocol, seed=0)
        difference, _ = golden.differences(limited.infer(model, golden.feeds))
        kernels = limited.layer_times(model).kernels
        found.append(
            IsaPlace(
                isa,
                difference,
                difference <= TOLERANCE,
                float(np.median(medians_s[:, number])),
                float(slowdowns[number]),
                verdict(requested_speedup, evidence.speedup, evidence.noise_floor, evidence.is_disturbed),
                evidence.speedup,
                None if kernels is None else tuple(kernels),
            )
        )
    return tuple(found)


def _median_s(bench: Bench, model: Candidate) -> float:
    return float(np.median(bench.alone(model, seconds=0.5).samples_s))

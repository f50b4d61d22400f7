"""Does the network still say what it said when it was certified?"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.certification.accuracy import Score, accuracy_record
from pipeline.differences import INT8_STEPS, relative_differences
from pipeline.releases.checks import Check, check
from pipeline.releases.release import Accuracy
from pipeline.scoring.registry import scorer_of
from pipeline.serving.record import ServingRecord
from pipeline.verifying.sample import read_sample
from profilers.measure import Bench, Candidate
from reports import formatting
from targets.errors import AccuracyError, ArtifactError

GOLDEN = "golden.safetensors"
TOGETHER_BYTES = 2**28
"""Outputs of a sample that are in memory at a time: a detector's take megabytes an image."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs [n, …] by name, in the model's order, and the outputs [n, …] that the certified network gave for them."""

    feeds: dict[str, NDArray[Any]]
    outputs: NDArray[np.float32]

    def differences(self, outputs: NDArray[np.float32]) -> tuple[float, float]:
        """The largest and the typical difference (root mean square) of outputs [n, …], as fractions of the largest."""
        apart = relative_differences(outputs, self.outputs)
        return float(apart.max()), float(np.sqrt(np.mean(apart**2)))

    def batch(self, size: int) -> dict[str, NDArray[Any]]:
        """The first ``size`` inputs, repeated where there are fewer."""
        rows = np.arange(size) % len(self.outputs)
        return {name: array[rows] for name, array in self.feeds.items()}


def read_golden(bundle: Path) -> Golden | None:
    """The bundle's golden inputs and outputs, None where it has none.

    Raises:
        ArtifactError: the file is broken.
    """
    path = bundle / GOLDEN
    if not path.exists():
        return None
    try:
        tensors: Mapping[str, Any] = load_file(path)
        record = ServingRecord.load(bundle)
        return Golden({spec.name: tensors[spec.name] for spec in record.inputs}, tensors[record.output.name])
    except (OSError, KeyError, SafetensorError) as error:
        raise ArtifactError(f"{path} holds no golden inputs and outputs ({error}). Get the bundle again.") from None


def check_golden(
    bench: Bench, model: Candidate, golden: Golden | None, tolerance: float, in_int8: bool = False
) -> Check:
    """Whether the runtime gives the golden outputs here, up to rounding.

    Args:
        tolerance: largest difference as a fraction of the largest output.
        in_int8: layers compute in int8, which other CPUs round in other ways: `INT8_STEPS` apart is no other network.

    Raises:
        RuntimeMissingError: the network does not run.
        UnreachableError: the device went away.
    """
    name, asked = "golden outputs", f"within {tolerance:g} of the largest"
    if golden is None:
        return Check(name, "skipped", asked, "the bundle has none")
    found = bench.infer(model, golden.feeds)
    if found.shape != golden.outputs.shape:
        shapes = f"the outputs have the shape {found.shape}, not {golden.outputs.shape}"
        return Check(name, "failed", asked, shapes, ArtifactError.exit_code)
    largest, typical = golden.differences(found)
    text = f"{largest:.1e} apart, {len(found)} samples"
    passed = largest <= tolerance  # NaN is no agreement
    if in_int8:
        asked += f", or in int8 {INT8_STEPS:g} in the root mean square"
        text += f", {typical:.1e} in the root mean square"
        passed = passed or typical <= INT8_STEPS
    return check(name, passed, asked, text, ArtifactError.exit_code)


def check_accuracy(
    bench: Bench, dense: Candidate | None, model: Candidate, sample: Path, certified: Accuracy, record: ServingRecord
) -> tuple[Check, dict[str, Any]]:
    """Whether the network loses no more against the dense one on a sample than it was certified to lose.

    Any sample serves, however hard: both networks see it, and their difference is compared with the certificate's. In a
    bundle without the dense network the accuracy itself is, with its bootstrap interval.

    Args:
        sample: .npz file that `read_sample` reads.
        record: how the network is fed, and what it does.

    Raises:
        ConfigError: the sample cannot be read or does not fit, or what the network does cannot be scored.
        RuntimeMissingError: a network does not run.
    """
    scorer = scorer_of(record.task)
    feeds, truth = read_sample(sample, record.inputs, scorer)

    count = len(next(iter(feeds.values())))
    step = max(1, TOGETHER_BYTES // (4 * math.prod(record.output.shape[1:])))

    def outputs(network: Candidate) -> Iterator[NDArray[np.float32]]:
        for start in range(0, count, step):
            yield bench.infer(network, {name: array[start : start + step] for name, array in feeds.items()})

    def score(network: Candidate) -> Score:
        return scorer.score(outputs(network), truth, certified.metric)

    compressed = score(model)
    reference = compressed if dense is None else score(dense)
    lost = accuracy_record(reference, compressed, confidence=certified.confidence)
    samples = f"{len(compressed.per_sample)} samples"
    if dense is None:
        passed = lost["compressed_high"] >= certified.compressed
        asked = f"{formatting.percent(certified.compressed, 2)}, as certified"
        found = f"{formatting.percent(compressed.value, 2)} on {samples}"
    else:
        passed = lost["ci_high"] >= certified.ci_low
        asked = f"{formatting.points(certified.difference, 2)} points against dense, as certified"
        scores = f"{formatting.percent(reference.value, 2)} → {formatting.percent(compressed.value, 2)}"
        found = f"{formatting.points(lost['difference'], 2)} points on {samples} ({scores})"
    return check("accuracy", passed, asked, found, AccuracyError.exit_code), lost

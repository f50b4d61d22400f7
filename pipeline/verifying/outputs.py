"""Does the network still say what it said when it was certified?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline.accuracy import Score, accuracy_record
from pipeline.checks import Check, check
from pipeline.release import Accuracy
from pipeline.serving.record import ServingRecord
from profilers.measure import Bench, Candidate
from reports import formatting
from targets.errors import AccuracyError, ArtifactError, ConfigError

GOLDEN = "golden.safetensors"


@dataclass(frozen=True, slots=True)
class Golden:
    """Inputs [n, …] by name, in the model's order, and the outputs [n, …] that the certified network gave for them."""

    feeds: dict[str, NDArray[Any]]
    outputs: NDArray[np.float32]

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


def check_golden(bench: Bench, model: Candidate, golden: Golden | None, tolerance: float) -> Check:
    """Whether the runtime gives the golden outputs here, up to rounding.

    Args:
        tolerance: largest difference as a fraction of the largest output.

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
    scale = max(float(np.abs(golden.outputs).max()), float(np.finfo(np.float32).tiny))
    difference = float(np.abs(found - golden.outputs).max()) / scale
    text = f"{difference:.1e} apart, {len(found)} samples"
    return check(name, difference <= tolerance, asked, text, ArtifactError.exit_code)  # NaN is no agreement


def check_accuracy(
    bench: Bench, dense: Candidate | None, model: Candidate, sample: Path, certified: Accuracy
) -> tuple[Check, dict[str, Any]]:
    """Whether the network loses no more against the dense one on a sample than it was certified to lose.

    Any sample serves, however hard: both networks see it, and their difference is compared with the certificate's. In a
    bundle without the dense network the accuracy itself is, with the interval of a share of ``n``.

    Args:
        sample: .npz file with preprocessed ``inputs`` [n, …] and ``labels`` [n].

    Raises:
        ConfigError: the sample cannot be read or does not fit.
        RuntimeMissingError: a network does not run.
    """
    inputs, labels = read_sample(sample)
    compressed = _score(bench, model, inputs, labels)
    reference = compressed if dense is None else _score(bench, dense, inputs, labels)
    record = accuracy_record(reference, compressed, confidence=certified.confidence)
    scores = f"{formatting.percent(reference.value, 2)} → {formatting.percent(compressed.value, 2)}"
    if dense is None:
        error = 2 * float(np.sqrt(max(compressed.value * (1 - compressed.value), 0.25 / len(labels)) / len(labels)))
        passed = compressed.value + error >= certified.compressed
        asked = f"{formatting.percent(certified.compressed, 2)}, as certified"
        found = f"{formatting.percent(compressed.value, 2)} on {len(labels)} samples"
    else:
        passed = record["ci_high"] >= certified.ci_low
        asked = f"{formatting.points(certified.difference, 2)} points against dense, as certified"
        found = f"{formatting.points(record['difference'], 2)} points on {len(labels)} samples ({scores})"
    return check("accuracy", passed, asked, found, AccuracyError.exit_code), record


def _score(bench: Bench, model: Candidate, inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> Score:
    hits = (bench.infer(model, {"input": inputs}).argmax(axis=1) == labels).astype(np.float64)
    return Score("top-1 accuracy", float(hits.mean()), hits)


def read_sample(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Preprocessed inputs [n, …] and labels [n].

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            inputs, labels = arrays["inputs"], arrays["labels"]
    except (OSError, ValueError, KeyError, AttributeError, EOFError) as error:
        raise ConfigError(f"{path} is no sample: an .npz file with inputs [n, …] and labels [n] ({error}).") from None
    if labels.shape != inputs.shape[:1] or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
        raise ConfigError(
            f"{path}: inputs {inputs.shape} and labels {labels.shape} {labels.dtype} do not fit together."
        )
    return inputs.astype(np.float32, copy=False), labels.astype(np.int64)

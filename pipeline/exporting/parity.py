"""Do the exported files still say what the checkpoint says, on every runtime that will read them?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from pipeline.context import Run
from pipeline.differences import INT8_STEPS, relative_differences
from pipeline.models.base import Feeds
from profilers.measure import Candidate
from targets.errors import ArtifactError
from targets.files import write_atomically

SAMPLES = 256
SAMPLE_BYTES = 64 * 2**20
"""Samples that are compared, and how much memory they may take; one batch at least."""
GOLDEN_BYTES = 8 * 2**20
"""Of the inputs that a bundle carries."""
OUTPUT = "output"


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """How far a runtime's outputs are from torch's.

    Args:
        runtime: that ran the file.
        samples: inputs compared.
        max_abs: largest absolute difference of an output.
        max_rel: largest difference over the largest absolute output of torch.
        typical_rel: root mean square of the same.
        top1_agreement: fraction of samples whose largest output is the same.
    """

    runtime: str
    samples: int
    max_abs: float
    max_rel: float
    typical_rel: float
    top1_agreement: float


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far outputs may be from torch's, over the largest: every single one, and their root mean square.

    Steps of 8 bits move single values far, where they lie between two of them: there only the mean says whether the
    file is another network. What int8 costs in accuracy is judged on the task, by the certificate.
    """

    largest: float = 1e-3
    typical: float = 1e-3


ROUNDING, ROUNDING_TO_INT8 = Tolerance(), Tolerance(largest=float("inf"), typical=INT8_STEPS)


def golden_inputs(run: Run, count: int) -> NDArray[Any]:
    """The first ``count`` samples of the test split, repeated where it has fewer."""
    rows = np.arange(count, dtype=np.int64) % len(run.splits.test)
    return run.splits.test.inputs(rows)


def check_exports(
    run: Run, model: nn.Module, onnx_path: Path, ir_path: Path, tolerance: Tolerance = ROUNDING
) -> list[ParityRecord]:
    """Compare onnxruntime, OpenVINO and the target's runtime with torch.

    Raises:
        ArtifactError: one of them differs by more than ``tolerance``.
    """
    inputs = golden_inputs(run, _sample_count(run))
    feeds, expected = run.adapter.feeds(inputs), run.predict(model)(inputs)
    records = [
        check_parity(expected, onnx_path, feeds, "onnxruntime", tolerance),
        check_parity(expected, ir_path, feeds, "openvino", tolerance),
    ]
    runtime = run.bench.runtime.name
    if runtime not in ("onnxruntime", "openvino"):
        found = run.bench.infer(Candidate("exported", onnx_path), feeds)
        records.append(compare_outputs(runtime, str(onnx_path), expected, found, tolerance))
    return records


def write_golden(run: Run, onnx_path: Path, path: Path) -> None:
    """Inputs, a batch at most, and the output that the target's runtime gives for them, by their names in the model."""
    count = max(1, min(run.target.batch_size, GOLDEN_BYTES // golden_inputs(run, 1).nbytes))
    feeds = run.adapter.feeds(golden_inputs(run, count))
    output = run.bench.infer(Candidate("exported", onnx_path), feeds)
    write_atomically(path, save({name: np.ascontiguousarray(a) for name, a in feeds.items()} | {OUTPUT: output}))


def check_parity(
    expected: NDArray[np.float32],
    path: Path,
    feeds: Feeds,
    runtime: str = "onnxruntime",
    tolerance: Tolerance = ROUNDING,
) -> ParityRecord:
    """Compare a runtime's outputs with torch's, both in float32.

    Args:
        expected: [n, …] outputs of torch.
        path: ONNX file, or OpenVINO IR for ``openvino``.
        feeds: inputs [n, …]; the file's fixed batch size is filled up by repeating.
        runtime: ``onnxruntime`` or ``openvino``.
        tolerance: relative differences that pass.

    Raises:
        ArtifactError: the difference is larger, or the file does not load.
    """
    load = _PREDICTORS[runtime]
    try:
        predict, batch_size = load(path)
    except Exception as error:  # each runtime has its own kinds
        raise ArtifactError(f"{runtime} does not load {path}: {error}") from error
    return compare_outputs(runtime, str(path), expected, _in_batches(predict, feeds, batch_size), tolerance)


def compare_outputs(
    runtime: str,
    file: str,
    expected: NDArray[np.float32],
    found: NDArray[np.float32],
    tolerance: Tolerance = ROUNDING,
) -> ParityRecord:
    """How far ``found`` outputs [n, …] of a runtime are from the ``expected`` ones of torch.

    Raises:
        ArtifactError: further than ``tolerance``, or not finite.
    """
    relative = relative_differences(found, expected)
    largest, typical = float(relative.max()), float(np.sqrt(np.mean(np.square(relative, dtype=np.float64))))
    answers, theirs = (outputs.reshape(len(outputs), -1).argmax(axis=1) for outputs in (found, expected))
    apart, agreement = float(np.abs(found - expected).max()), float((answers == theirs).mean())
    record = ParityRecord(runtime, len(expected), apart, largest, typical, agreement)
    if not (largest <= tolerance.largest and typical <= tolerance.typical):
        raise ArtifactError(
            f"{file} on {runtime} differs from torch by up to {largest:.2g} of the largest output, {typical:.2g} in "
            f"the mean; at most {tolerance.largest:.2g} and {tolerance.typical:.2g} is rounding. Export again; if it "
            "stays, report the operator that differs."
        )
    return record


def _sample_count(run: Run) -> int:
    one = golden_inputs(run, 1)
    return max(run.target.batch_size, min(SAMPLES, SAMPLE_BYTES // one.nbytes))


_Run = Callable[[Feeds], NDArray[np.float32]]


def _onnxruntime(path: Path) -> tuple[_Run, int]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, batch)[0], session.get_inputs()[0].shape[0]


def _openvino(path: Path) -> tuple[_Run, int]:
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda batch: compiled(batch)[0], compiled.inputs[0].shape[0]


_PREDICTORS: dict[str, Callable[[Path], tuple[_Run, int]]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}


def _in_batches(predict: _Run, feeds: Feeds, batch_size: int) -> NDArray[np.float32]:
    """Outputs of all inputs; the last batch is filled up by repeating, and the repetitions dropped."""
    count = len(next(iter(feeds.values())))
    rows = np.resize(np.arange(count), -(-count // batch_size) * batch_size)
    outputs = [predict({name: array[batch] for name, array in feeds.items()}) for batch in rows.reshape(-1, batch_size)]
    return np.concatenate(outputs)[:count]

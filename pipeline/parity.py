"""Do the exported files still say what the checkpoint says, on every runtime that will read them?"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from pipeline.context import Run
from pipeline.export import ROUNDING, ParityRecord, Tolerance, check_parity, compare_outputs
from profilers.measure import Candidate

SAMPLES = 256
SAMPLE_BYTES = 64 * 2**20
"""Samples that are compared, and how much memory they may take; one batch at least."""
OUTPUT = "output"


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
    """One batch of inputs, and the output that the target's runtime gives for them, by their names in the model."""
    feeds = run.adapter.feeds(golden_inputs(run, run.target.batch_size))
    output = run.bench.infer(Candidate("exported", onnx_path), feeds)
    part = path.with_name(path.name + ".part")
    save_file({name: np.ascontiguousarray(array) for name, array in feeds.items()} | {OUTPUT: output}, part)
    part.replace(path)


def _sample_count(run: Run) -> int:
    one = golden_inputs(run, 1)
    return max(run.target.batch_size, min(SAMPLES, SAMPLE_BYTES // one.nbytes))

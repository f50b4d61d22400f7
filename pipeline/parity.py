"""Do the exported files still say what the checkpoint says, on every runtime that will read them?"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn

from pipeline.context import Run
from pipeline.export import ParityRecord, check_parity, compare_outputs
from pipeline.models.inference import torch_predict
from profilers.measure import Candidate

SAMPLES = 256


def golden_inputs(run: Run, count: int) -> NDArray[np.float32]:
    """The first ``count`` inputs of the test split, repeated where it has fewer."""
    rows = np.arange(count, dtype=np.int64) % len(run.splits.test)
    return run.splits.test.inputs(rows)


def check_exports(run: Run, model: nn.Module, onnx_path: Path, ir_path: Path) -> list[ParityRecord]:
    """Compare onnxruntime, OpenVINO and the target's runtime with torch.

    Raises:
        ArtifactError: one of them differs by more than rounding.
    """
    inputs = golden_inputs(run, SAMPLES)
    records = [
        check_parity(model, onnx_path, inputs, "onnxruntime"),
        check_parity(model, ir_path, inputs, "openvino"),
    ]
    runtime = run.bench.runtime.name
    if runtime not in ("onnxruntime", "openvino"):
        found = run.bench.infer(Candidate("exported", onnx_path), inputs)
        records.append(compare_outputs(runtime, str(onnx_path), torch_predict(model)(inputs), found))
    return records


def write_golden(run: Run, onnx_path: Path, path: Path) -> None:
    """One batch of inputs, and the outputs that the target's runtime gives for them."""
    inputs = golden_inputs(run, run.target.batch_size)
    outputs = run.bench.infer(Candidate("exported", onnx_path), inputs)
    part = path.with_name(path.name + ".part")
    save_file({"inputs": inputs, "outputs": outputs}, part)
    part.replace(path)

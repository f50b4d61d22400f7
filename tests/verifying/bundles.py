"""Small bundles that can be run: two matrix products of a real certificate's form, on onnxruntime."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from pipeline.releases.bundle import write_bundle
from pipeline.run_folder import write_json
from pipeline.serving.record import ServingRecord, TensorSpec
from pipeline.verifying.sample import SAMPLE, write_sample
from targets.host import collect_host
from targets.registry import get_runtime
from tests.profilers.test_measure import write_matmul
from tests.small_bundles import certificate

BATCH, WIDTH = 4, 384
RECORD = ServingRecord(
    model="two products",
    task="image-classification",
    inputs=(TensorSpec("x0", (BATCH, WIDTH), "float32"),),
    output=TensorSpec("x2", (BATCH, WIDTH), "float32"),
    runtime="onnxruntime",
    precision="fp32",
    threads=1,
    batch_size=BATCH,
    preprocessing=None,
    classes=(),
)


def runnable_bundle(
    folder: Path,
    *,
    without: tuple[str, ...] = (),
    spoil: bool = False,
    moved: float = 0.0,
    golden_rows: int = BATCH,
    task: str = RECORD.task,
    labelled: int = 0,
    **changes: Any,
) -> Path:
    """A bundle whose network really is several times as fast as its dense one.

    Args:
        without: files that are left out.
        spoil: golden outputs that the network does not give.
        moved: by so much of the largest, a single one of them is another.
        golden_rows: samples with golden outputs; fewer than a batch where they are large.
        task: of the network.
        labelled: samples that the bundle carries, whose labels are what the compressed network says of them.
        changes: of the certificate.
    """
    import onnxruntime

    source = folder / "source"
    source.mkdir(parents=True)
    write_matmul(source / "model.onnx", WIDTH, 2)
    write_matmul(source / "dense.onnx", WIDTH, 14)
    inputs = np.random.default_rng(1).standard_normal((BATCH, WIDTH)).astype(np.float32)
    session = onnxruntime.InferenceSession(source / "model.onnx", providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: inputs})
    golden = outputs + spoil
    golden[0, 0] += moved * np.abs(golden).max()
    save_file({"x0": inputs[:golden_rows].copy(), "x2": golden[:golden_rows].copy()}, source / "golden.safetensors")
    if labelled:
        rows = np.resize(inputs, (labelled, WIDTH))
        write_sample(source / SAMPLE, {"x0": rows}, {"labels": np.resize(outputs.argmax(axis=1), labelled)})
    write_json(source / "serving.json", replace(RECORD, task=task).to_json())
    here = {"id": collect_host().id, "model": collect_host().model}
    network = {"runtime": "onnxruntime", "precision": "fp32"}
    fields: dict[str, Any] = {
        "requested_speedup": 1.5,
        "host": here,
        "target": {"runtime": "onnxruntime", "threads": 1, "batch_size": BATCH},
        "baseline": network,
        "compressed": network,
        "versions": {"onnxruntime": get_runtime("onnxruntime").version},
    }
    (source / "certificate.json").write_text(json.dumps(certificate(**fields | changes)))
    (source / "plan.json").write_text(json.dumps({"schema": 1, "units": []}))
    names = sorted({path.name for path in source.iterdir()} - set(without))
    write_bundle(folder / "bundle", {name: source / name for name in names}, {"status": "certified"})
    return folder / "bundle"

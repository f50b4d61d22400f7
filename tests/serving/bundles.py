"""Small bundles made by hand, with everything that serving needs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import nn

from calibration.datasets import Splits
from calibration.pictures import Preprocessing
from pipeline.exporting.export import export_onnx, export_openvino_ir
from pipeline.models.base import ModelAdapter
from pipeline.releases.bundle import write_bundle
from pipeline.run_folder import write_json
from pipeline.serving.describe import tensor_spec
from pipeline.serving.record import ServingRecord, TensorSpec
from tests.targets.test_runtimes import BATCH, make_weights, write_model

CLASSES = tuple("abcdefghij")
RECORD = ServingRecord(
    model="tiny:1",
    task="image-classification",
    inputs=(TensorSpec("x", (BATCH, 3, 16, 16), "float32"),),
    output=TensorSpec("y", (BATCH, 10), "float32"),
    runtime="onnxruntime",
    precision="fp32",
    threads=1,
    batch_size=BATCH,
    preprocessing=Preprocessing("RGB", (16, 16), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)),
    classes=CLASSES,
)


def make_bundle(folder: Path, **changes: Any) -> Path:
    """A bundle in ``folder``/bundle whose serving record has some fields changed."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model.onnx", make_weights(), BATCH)
    return write_bundle_around(folder, **changes)


def write_bundle_around(folder: Path, **changes: Any) -> Path:
    """A bundle in ``folder``/bundle with the network of ``folder``/model.onnx."""
    export_openvino_ir(folder / "model.onnx", folder / "openvino" / "model.xml")
    write_json(folder / "serving.json", replace(RECORD, **changes).to_json())
    write_json(folder / "certificate.json", {"schema": 1, "status": "certified", "measured_speedup": 2.0})
    names = ("model.onnx", "openvino/model.xml", "openvino/model.bin", "serving.json", "certificate.json")
    write_bundle(folder / "bundle", {name: folder / name for name in names}, {"status": "certified"})
    return folder / "bundle"


def bundle_of(
    folder: Path, adapter: ModelAdapter, weights: Path, data: Path, input_size: int, batch_size: int = 2
) -> tuple[Path, nn.Module, Splits]:
    """A bundle of a family's dense network as the pipeline exports it, the network, and its data."""
    splits = adapter.load_data(data, weights, input_size)
    network = adapter.load(weights, splits)
    path = folder / "model.onnx"
    export_onnx(adapter.deployed(network), adapter.feeds(splits.test.inputs(np.arange(batch_size))), path)
    graph = onnx.load(path).graph
    record = replace(
        RECORD,
        model=adapter.name,
        task=adapter.task,
        inputs=tuple(map(tensor_spec, graph.input)),
        output=tensor_spec(graph.output[0]),
        batch_size=batch_size,
        preprocessing=splits.test.preprocessing,
        classes=splits.test.classes,
    )
    write_json(folder / "serving.json", record.to_json())
    write_json(folder / "certificate.json", {"schema": 1, "status": "certified", "measured_speedup": 2.0})
    for name, content in splits.bundled.items():
        (folder / name).write_text(content)
    names = ("model.onnx", "serving.json", "certificate.json", *splits.bundled)
    write_bundle(folder / "bundle", {name: folder / name for name in names}, {"status": "certified"})
    return folder / "bundle", network, splits

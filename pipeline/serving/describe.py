"""From a finished run to its serving record."""

from typing import Any

import onnx

from pipeline.context import Run
from pipeline.serving.record import ServingRecord, TensorSpec


def describe_serving(run: Run) -> ServingRecord:
    """How the exported network of a run is fed, run and read; its runtime must have been chosen."""
    graph = onnx.load(run.folder.file("model.onnx"), load_external_data=False).graph
    target = run.bench.target
    return ServingRecord(
        model=run.adapter.name,
        task=run.adapter.task,
        inputs=tuple(map(tensor_spec, graph.input)),
        output=tensor_spec(graph.output[0]),
        runtime=run.bench.runtime.name,
        precision="fp32",
        threads=target.threads,
        batch_size=target.batch_size,
        preprocessing=run.splits.test.preprocessing,
        classes=run.splits.test.classes,
    )


def tensor_spec(value: Any) -> TensorSpec:
    """An input or output of a graph."""
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, tuple(d.dim_value for d in tensor.shape.dim), dtype.name)

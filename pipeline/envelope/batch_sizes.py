"""A network's file for another batch size: exports are made for one."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from targets.files import write_atomically

TOLD_SHAPES = ("Reshape", "Expand")
"""Operations whose second input is a shape."""


def write_for_batch(source: Path, batch_size: int, path: Path) -> None:
    """Write a network for another batch size: shapes that begin with the old one begin with the new one.

    Those of inputs and outputs, and those that operations are told; the shapes between follow from them.
    """
    model = onnx.load(source)
    graph = model.graph
    old = graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for tensor in (*graph.input, *graph.output):
        shape = tensor.type.tensor_type.shape.dim
        if shape and shape[0].dim_value == old:
            shape[0].dim_value = batch_size
    del graph.value_info[:]
    told = {node.input[1] for node in graph.node if node.op_type in TOLD_SHAPES}
    constants = [
        (node.output[0], attribute.t)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    ]
    for name, tensor in [*((tensor.name, tensor) for tensor in graph.initializer), *constants]:
        if name in told:
            given = numpy_helper.to_array(tensor)
            if given.ndim == 1 and len(given) and given[0] == old:
                tensor.CopyFrom(numpy_helper.from_array(np.array([batch_size, *given[1:]], given.dtype), tensor.name))
    write_atomically(path, model.SerializeToString())

"""A network for another batch size gives every sample what it gave."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from pipeline.envelope.batch_sizes import write_for_batch


def test_every_sample_has_its_outputs_in_every_batch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((6, 6)).astype(np.float32)
    shape = helper.make_node("Constant", [], ["flat"], value=numpy_helper.from_array(np.array([4, 6])))
    nodes = [
        helper.make_node("Reshape", ["x", "square"], ["y"]),
        helper.make_node("Transpose", ["y"], ["z"], perm=[0, 2, 1]),
        shape,
        helper.make_node("Reshape", ["z", "flat"], ["v"]),
        helper.make_node("MatMul", ["v", "w"], ["out"]),
    ]
    initializers = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array([4, 2, 3]), "square")]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 6]) for name in ("x", "out")]
    inner = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2, 3])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], initializers, value_info=inner)
    source = tmp_path / "four.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), str(source))
    samples = rng.standard_normal((4, 6)).astype(np.float32)

    def outputs(path: Path, rows: slice) -> np.ndarray:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found: np.ndarray = session.run(None, {"x": samples[rows]})[0]
        return found

    expected = outputs(source, slice(None))
    for size in (1, 2):
        path = tmp_path / f"{size}.onnx"
        write_for_batch(source, size, path)
        assert np.allclose(outputs(path, slice(size)), expected[:size], atol=1e-6)

"""Hidden costs are found in the model file and in the runtime's counters, and named."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.certification.hidden_costs import FAST_KERNELS, hidden_costs, slow_kernels
from profilers.measure import Bench, Candidate
from targets.registry import get_runtime
from targets.runtimes.onnx_graph import read_graph, read_weights
from targets.target import Target
from tests.targets.test_runtimes import BATCH, make_weights, write_model

pytestmark = pytest.mark.timed


@pytest.fixture
def bench() -> Bench:
    target = Target(name="costs", vendor="any", runtime="onnxruntime", threads=1, batch_size=BATCH)
    return Bench(get_runtime("onnxruntime"), target)


def named(bench: Bench, path: Path, fraction: float | None = None) -> dict[str, str]:
    return hidden_costs(bench, Candidate("model", path), fraction)


def test_what_the_file_hides_is_named(bench: Bench, tmp_path: Path) -> None:
    weights = make_weights()
    weights["second.weight"][:] = 0
    weights["first.weight"].flat[:3] = 1e-40
    path = write_model(tmp_path / "model.onnx", weights, BATCH)
    found = named(bench, path)
    assert found["denormal weights"].startswith("3 weights")
    assert "first.weight" in found["denormal weights"]
    assert "onnxruntime multiplies by them all" in found["zeros computed"]
    assert "batch norm" not in found


def test_zeros_in_int8_are_named_too(bench: Bench, tmp_path: Path) -> None:
    weights = make_weights()
    path = write_model(tmp_path / "model.onnx", weights, BATCH)
    model = onnx.load(path)
    zeros = np.zeros_like(weights["second.weight"], np.int8)
    (node,) = (node for node in model.graph.node if "second.weight" in node.input)
    node.input[1] = "dequantised"
    scale = {"scale": np.float32(0.1), "zero": np.int8(0), "steps": zeros}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in scale.items())
    model.graph.node.insert(0, helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["dequantised"]))
    onnx.save(model, path)
    assert "onnxruntime multiplies by them all" in named(bench, path)["zeros computed"]


def test_a_plain_network_hides_nothing_in_its_file(bench: Bench, tmp_path: Path) -> None:
    found = named(bench, write_model(tmp_path / "model.onnx", make_weights(), BATCH))
    assert not {"denormal weights", "zeros computed", "batch norm", "fallback"} & found.keys()


def test_a_fallback_and_conversions_are_named(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.certification.hidden_costs.SMALL_SHARE", 0.005)
    path = write_model(tmp_path / "model.onnx", make_weights(), BATCH)
    found = named(bench, path, fraction=0.4)
    assert "only 40%" in found["fallback"]
    assert "Reorder" in found["reorders"]  # onnxruntime's blocked layout, 2% here


def test_reference_kernels_of_openvino_are_named(bench: Bench, tmp_path: Path) -> None:
    shape = [BATCH, 64, 256]
    graph = helper.make_graph(
        [helper.make_node("CumSum", ["x", "axis"], ["y"], "sum")],
        "sums",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(1), "axis")],
    )
    path = tmp_path / "sums.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    found = named(replace(bench, runtime=get_runtime("openvino")), path)
    assert "reference kernels" in found["fallback"]
    assert "CumSum (ref" in found["fallback"]


def test_batch_norm_by_itself_is_named(bench: Bench, tmp_path: Path) -> None:
    ones = {name: np.ones(3, np.float32) for name in ("scale", "shift", "mean", "variance")}
    node = helper.make_node("BatchNormalization", ["x", *ones], ["y"], "norm")
    shape = [BATCH, 3, 8, 8]
    graph = helper.make_graph(
        [node],
        "norm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in ones.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8), tmp_path / "norm.onnx"
    )
    assert named(bench, tmp_path / "norm.onnx")["batch norm"].startswith("1 BatchNormalization")


def test_a_file_is_read_as_onnx_reads_it(tmp_path: Path) -> None:
    weights = make_weights()
    content = write_model(tmp_path / "model.onnx", weights, BATCH).read_bytes()
    found = read_weights(content)
    assert found.keys() == weights.keys()
    for name, values in weights.items():
        np.testing.assert_array_equal(found[name], values.ravel())
    graph = onnx.load(str(tmp_path / "model.onnx")).graph
    assert [(n.name, n.operation, n.inputs, n.outputs) for n in read_graph(content)] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in graph.node
    ]


def test_slow_kernels_are_named_by_one_rule_wherever_it_is_asked() -> None:
    assert slow_kernels("deepsparse", None) is None
    assert slow_kernels("deepsparse", FAST_KERNELS) is None
    said = slow_kernels("deepsparse", 0.9, ["Erf (node 7): no kernel", "Gather (node 9): no kernel"])
    assert said is not None
    assert "only 90%" in said
    assert "Erf (node 7)" in said
    assert "Gather (node 9)" in said

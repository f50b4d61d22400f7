import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import targets.runtimes
from targets import environments
from targets.registry import RUNTIMES, describe_runtime
from targets.runtimes import onnxruntime, openvino
from targets.runtimes.onnx_graph import read_input_types

BATCH = 8
LAYERS = {"/first/Conv", "/second/Conv", "/small/Conv", "/head/Gemm"}
FILES = Path(targets.runtimes.__file__).parent
Weights = dict[str, NDArray[np.float32]]


def make_weights() -> Weights:
    rng = np.random.default_rng(0)
    shapes = {
        "first.weight": (16, 3, 3, 3),
        "first.bias": (16,),
        "second.weight": (16, 16, 3, 3),
        "second.bias": (16,),
        "small.weight": (4, 16, 1, 1),
        "head.weight": (10, 4),
        "head.bias": (10,),
    }
    return {name: (0.3 * rng.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


def write_model(path: Path, weights: Weights, batch: int | str, size: int | str = 16) -> Path:
    """Conv, ReLU, Conv, residual Add, ReLU, small Conv, global pooling, Gemm."""

    def node(kind: str, name: str, inputs: list[str], **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [f"{name}_output_0"], name, **attributes)

    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "/first/Conv", ["x", "first.weight", "first.bias"], **same),
        node("Relu", "/Relu", ["/first/Conv_output_0"]),
        node("Conv", "/second/Conv", ["/Relu_output_0", "second.weight", "second.bias"], **same),
        node("Add", "/Add", ["/Relu_output_0", "/second/Conv_output_0"]),
        node("Relu", "/Relu_1", ["/Add_output_0"]),
        node("Conv", "/small/Conv", ["/Relu_1_output_0", "small.weight"], kernel_shape=[1, 1], strides=[4, 4]),
        node("GlobalAveragePool", "/Pool", ["/small/Conv_output_0"]),
        node("Flatten", "/Flatten", ["/Pool_output_0"]),
        helper.make_node("Gemm", ["/Flatten_output_0", "head.weight", "head.bias"], ["y"], "/head/Gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def reference(weights: Weights, x: NDArray[np.float32]) -> NDArray[np.float32]:
    w = {name: torch.from_numpy(array) for name, array in weights.items()}
    conv = torch.nn.functional.conv2d
    hidden = conv(torch.from_numpy(x), w["first.weight"], w["first.bias"], padding=1).relu()
    hidden = (hidden + conv(hidden, w["second.weight"], w["second.bias"], padding=1)).relu()
    hidden = conv(hidden, w["small.weight"], stride=4).mean((2, 3))
    result: NDArray[np.float32] = (hidden @ w["head.weight"].T + w["head.bias"]).numpy()
    return result


@pytest.fixture(scope="module")
def weights() -> Weights:
    return make_weights()


@pytest.fixture(scope="module")
def x() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((BATCH, 3, 16, 16)).astype(np.float32)


@pytest.fixture(params=[BATCH, "N"], ids=["static", "dynamic"])
def model(request: pytest.FixtureRequest, tmp_path: Path, weights: Weights) -> str:
    return str(write_model(tmp_path / "tiny.onnx", weights, request.param))


@pytest.mark.parametrize("runtime", [openvino, onnxruntime])
def test_outputs_are_the_networks(runtime: Any, model: str, weights: Weights, x: NDArray[np.float32]) -> None:
    with runtime.compile(model, 1, BATCH) as compiled:
        assert compiled.input_specs() == [("x", (BATCH, 3, 16, 16), "float32")]
        first, second = compiled.run([x]), compiled.run([x[::-1].copy()])
        assert compiled.layer_times() is None
        assert compiled.supported_fraction() is None
    expected = reference(weights, x)
    np.testing.assert_allclose(first[0], expected, atol=1e-4)
    np.testing.assert_allclose(second[0], expected[::-1], atol=1e-4)


@pytest.mark.parametrize("runtime", [openvino, onnxruntime])
def test_times_are_credited_to_every_layer(runtime: Any, model: str, x: NDArray[np.float32]) -> None:
    with runtime.compile(model, 1, BATCH, profile=True) as compiled:
        for _ in range(50):
            compiled.run([x])
        times = compiled.layer_times()
        assert compiled.layer_times() == times
    assert set(times) >= LAYERS
    assert all(seconds >= 0 for seconds in times.values())
    # 576 times the arithmetic, so more time on any machine.
    assert times["/second/Conv"] > times["/small/Conv"]
    assert "/Relu" not in times  # fused, so credited to the convolution


@pytest.mark.parametrize("runtime", [openvino, onnxruntime])
def test_a_matrix_product_fused_with_its_bias_keeps_its_name(runtime: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal((64, 32)).astype(np.float32), "b": np.ones(32, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["/fc/MatMul_output_0"], "/fc/MatMul"),
            helper.make_node("Add", ["b", "/fc/MatMul_output_0"], ["/fc/Add_output_0"], "/fc/Add"),
            helper.make_node("Softmax", ["/fc/Add_output_0"], ["y"], "/Softmax"),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [BATCH, 16, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [BATCH, 16, 32])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    path = tmp_path / "product.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with runtime.compile(str(path), 1, BATCH, profile=True) as compiled:
        compiled.run([rng.standard_normal((BATCH, 16, 64)).astype(np.float32)])
        assert compiled.layer_times()["/fc/MatMul"] > 0


def test_openvino_computes_in_the_precision_that_was_asked_for(model: str) -> None:
    for precision in describe_runtime("openvino").precisions:
        with openvino.compile(model, 1, BATCH, precision=precision) as compiled:
            hint = compiled.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
            used = {
                node.get_rt_info()["layerType"].astype(str): node.get_rt_info()["runtimePrecision"].astype(str)
                for node in compiled.compiled.get_runtime_model().get_ops()
            }
        assert hint == used["Convolution"] == {"fp32": "f32", "bf16": "bf16"}[precision]


def test_openvino_takes_the_threads_that_it_is_given(model: str) -> None:
    with openvino.compile(model, 1, BATCH) as compiled:
        settings = {name: compiled.compiled.get_property(name) for name in ("INFERENCE_NUM_THREADS", "NUM_STREAMS")}
    assert settings == {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


@pytest.mark.parametrize("runtime", [openvino, onnxruntime])
def test_a_precision_that_is_not_there_is_refused(runtime: Any, model: str) -> None:
    with pytest.raises(ValueError, match=r"fp32.* not in int4"):
        runtime.compile(model, 1, BATCH, precision="int4")


@pytest.mark.parametrize("runtime", [openvino, onnxruntime])
def test_dynamic_sizes_other_than_the_batch_are_refused(runtime: Any, tmp_path: Path, weights: Weights) -> None:
    path = write_model(tmp_path / "dynamic.onnx", weights, BATCH, "S")
    with pytest.raises(ValueError, match=r"input x .*only the batch may be dynamic"):
        runtime.compile(str(path), 1, BATCH)


def test_onnxruntime_refuses_another_fixed_batch(tmp_path: Path, weights: Weights) -> None:
    path = write_model(tmp_path / "static.onnx", weights, BATCH)
    with pytest.raises(ValueError, match="fixed batch size 8, not 4"):
        onnxruntime.compile(str(path), 1, 4, profile=True)


def test_openvino_compiles_for_another_batch(tmp_path: Path, weights: Weights, x: NDArray[np.float32]) -> None:
    path = write_model(tmp_path / "static.onnx", weights, BATCH)
    with openvino.compile(str(path), 1, 4) as compiled:
        np.testing.assert_allclose(compiled.run([x[:4]])[0], reference(weights, x[:4]), atol=1e-4)


@pytest.mark.parametrize("read", [True, False])
def test_onnxruntime_leaves_no_profile_behind(
    model: str, x: NDArray[np.float32], read: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with onnxruntime.compile(model, 1, BATCH, profile=True) as compiled:
        compiled.run([x])
        if read:
            compiled.layer_times()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["tiny.onnx", "tmp"]


@pytest.mark.parametrize("name", sorted(RUNTIMES))
def test_a_runtime_file_stands_alone_under_python_3_8(name: str) -> None:
    """The measuring worker imports it under other interpreters, without this package."""
    tree = ast.parse((FILES / f"{name}.py").read_text(), feature_version=(3, 8))
    allowed = sys.stdlib_module_names | {"numpy"}
    for node in tree.body:
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        elif isinstance(node, ast.ImportFrom):
            beside = node.level == 1 and (FILES / f"{node.module}.py").exists()  # it travels along
            assert beside or str(node.module).split(".")[0] in allowed


def test_the_types_of_inputs_are_those_that_onnx_reads() -> None:
    kinds = {
        "ids": TensorProto.INT64,
        "mask": TensorProto.BOOL,
        "image": TensorProto.FLOAT,
        "pixels": TensorProto.UINT8,
    }
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", 3]) for name, kind in kinds.items()]
    graph = helper.make_graph([], "inputs", inputs, [])
    expected = {name: helper.tensor_dtype_to_np_dtype(kind).name for name, kind in kinds.items()}
    assert read_input_types(helper.make_model(graph).SerializeToString()) == expected


PROGRAM = """
import json, sys
import numpy as np
from runtimes import deepsparse
model, inputs, outputs = sys.argv[1:]
with deepsparse.compile(model, 1, 8) as compiled:
    specs = compiled.input_specs()
    np.save(outputs, compiled.run([np.load(inputs)])[0])
    facts = [specs, compiled.layer_times(), compiled.supported_fraction(), deepsparse.versions()]
quick = not {"deepsparse", "sparsezoo", "setuptools"} & sys.modules.keys()
package = __import__("deepsparse")
facts.append([quick, hasattr(package, "Pipeline")])
try:
    deepsparse.compile(model, 1, 8, precision="bf16")
except ValueError as error:
    facts.append(str(error))
print(json.dumps(facts))
"""


@pytest.mark.deepsparse
@pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse is not installed")
def test_deepsparse_under_its_own_interpreter(
    model: str, weights: Weights, x: NDArray[np.float32], tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "program.pyz", "w") as archive:
        archive.writestr("__main__.py", PROGRAM)
        for source in FILES.glob("*.py"):
            archive.write(source, f"runtimes/{source.name}")
    np.save(tmp_path / "x.npy", x)
    command = [str(environments.installed("deepsparse")), "-I", "program.pyz", model, "x.npy", "y.npy"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    specs, layer_times, fraction, versions, (quick, is_whole), refusal = json.loads(result.stdout)
    assert quick  # nothing was imported that takes longer than the measurement
    assert is_whole  # and whoever imports the package afterwards has all of it
    assert specs == [["x", [BATCH, 3, 16, 16], "float32"]]
    assert layer_times is None
    assert fraction == 1.0
    assert versions["deepsparse"] == "1.8.0"
    assert "fp32" in refusal
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), reference(weights, x), atol=1e-4)

"""Bundles on runtimes that are kept to an older instruction set: what they say there, and which cannot be kept."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.certification.evidence import Protocol
from pipeline.envelope.envelope import Envelope, measure_envelope
from pipeline.envelope.envelope_page import envelope_page
from pipeline.envelope.isa_parity import FEATURES, TOLERANCE, check_isas, measure_isas
from pipeline.verifying.outputs import Golden
from profilers.measure import Bench, Candidate, Effort, save_feeds
from reports.html import render_html
from targets import environments
from targets.errors import ConfigError
from targets.host import isa_features
from targets.registry import RUNTIMES, get_runtime, isa_limit
from targets.target import Target
from tests.quick_runs import QUICK
from tests.verifying.bundles import runnable_bundle

pytestmark = pytest.mark.timed

CHANNELS, BATCH, SIZE = 32, 4, 8
LITTLE = Protocol(processes=2, most_processes=2, null_processes=2, effort=QUICK)
has_vnni = pytest.mark.skipif(
    "avx512_vnni" not in isa_features(), reason="this CPU has no avx512_vnni that could be left out"
)


def write_convolutions(path: Path, layers: int) -> Path:
    """Convolutions with activations between, and a matrix product."""
    rng = np.random.default_rng(0)
    weights, nodes, name = {}, [], "input"
    for number in range(layers):
        weights[f"w{number}"] = (rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) * 0.08).astype(np.float32)
        convolution = [name, f"w{number}"]
        nodes.append(helper.make_node("Conv", convolution, [f"c{number}"], f"conv{number}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"], f"relu{number}"))
        name = f"r{number}"
    weights["w"] = (rng.standard_normal((CHANNELS * SIZE * SIZE, 10)) * 0.05).astype(np.float32)
    nodes += [helper.make_node("Flatten", [name], ["f"]), helper.make_node("MatMul", ["f", "w"], ["output"], "fc")]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [BATCH, CHANNELS, SIZE, SIZE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [BATCH, 10])],
        [numpy_helper.from_array(array, weight) for weight, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def inputs(count: int) -> Iterator[dict[str, NDArray[np.float32]]]:
    rng = np.random.default_rng(1)
    for _ in range(count):
        yield {"input": rng.standard_normal((BATCH, CHANNELS, SIZE, SIZE)).astype(np.float32)}


def quantise(source: Path, path: Path, *, reduce_range: bool) -> Path:
    """The network in int8, every channel with a scale of its own; weights of 7 bits where the range is reduced."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        batches = inputs(8)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(self.batches, None)

    quantize_static(
        source,
        path,
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        reduce_range=reduce_range,
    )
    return path


def bench(runtime: str, isa: str | None = None) -> Bench:
    target = Target(name="isa", vendor="any", runtime=runtime, threads=1, batch_size=BATCH)
    return Bench(get_runtime(runtime), target, effort=Effort(1, 5, 0.2, patience_s=0.0, timeout_s=120), isa=isa)


@has_vnni
@pytest.mark.parametrize("reduce_range", [False, True])
def test_int8_sums_saturate_without_vnni_unless_the_range_is_reduced(tmp_path: Path, reduce_range: bool) -> None:
    model = quantise(write_convolutions(tmp_path / "a.onnx", 3), tmp_path / "b.onnx", reduce_range=reduce_range)
    candidate, (feeds,) = Candidate("int8", model), inputs(1)
    native, limited = (bench("openvino", isa).infer(candidate, feeds) for isa in (None, "avx2"))
    apart = float(np.abs(limited - native).max() / np.abs(native).max())
    assert (apart > TOLERANCE) == (not reduce_range)


@has_vnni
def test_openvino_takes_the_kernels_of_the_set_that_it_is_kept_to(tmp_path: Path) -> None:
    model = Candidate("fp32", write_convolutions(tmp_path / "a.onnx", 2))
    kernels = {isa: bench("openvino", isa).layer_times(model, rounds=3).kernels or () for isa in (None, "avx2")}
    assert any("avx512" in kernel for kernel in kernels[None])
    assert any("avx2" in kernel for kernel in kernels["avx2"])
    assert not any("avx512" in kernel for kernel in kernels["avx2"])


@pytest.mark.deepsparse
@pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse's environment is not installed")
def test_deepsparse_loads_the_library_of_the_set_that_it_is_kept_to(tmp_path: Path) -> None:
    model = Candidate("fp32", write_convolutions(tmp_path / "a.onnx", 2))
    limited = bench("deepsparse", "avx2")
    assert limited.layer_times(model, rounds=1).kernels == ["avx2"]
    (feeds,) = inputs(1)
    np.testing.assert_allclose(limited.infer(model, feeds), bench("deepsparse").infer(model, feeds), atol=1e-3)


def test_what_cannot_be_kept_says_so(tmp_path: Path) -> None:
    bundle = runnable_bundle(tmp_path)  # of onnxruntime
    with pytest.raises(ConfigError, match="onnxruntime cannot be kept to avx2 or any other instruction set: it takes"):
        measure_envelope(bundle, threads=[1], batches=[4], neighbour=False, isas=["avx2"], protocol=LITTLE)
    with pytest.raises(ConfigError, match="cannot be kept to sse2; it can be to avx2, avx512"):
        check_isas("openvino", ["sse2"])
    with pytest.raises(ConfigError, match="it can be to avx2"):
        check_isas("deepsparse", ["avx512"])


def test_a_set_that_this_cpu_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.envelope.isa_parity.isa_features", lambda: ("avx2", "fma"))
    check_isas("openvino", ["avx2"])
    with pytest.raises(ConfigError, match="has no avx512"):
        check_isas("openvino", ["avx2", "avx512"])


def test_every_limit_is_of_a_set_that_a_cpu_can_have() -> None:
    for name, runtime in RUNTIMES.items():
        for isa in runtime.ISA_LIMITS:
            assert isa in FEATURES
            assert isa_limit(name, isa)


@has_vnni
def test_the_envelope_tells_outputs_and_speed_under_a_limit(tmp_path: Path) -> None:
    dense = write_convolutions(tmp_path / "dense.onnx", 6)
    model = quantise(write_convolutions(tmp_path / "fp32.onnx", 3), tmp_path / "model.onnx", reduce_range=False)
    (feeds,), source = inputs(1), tmp_path / "inputs.npz"
    save_feeds(source, feeds)
    fed = replace(bench("openvino"), inputs=source)
    golden = Golden(feeds, fed.infer(Candidate("int8", model), feeds))
    places = measure_isas(fed, dense, model, golden, ["avx2"], requested_speedup=1.2, protocol=LITTLE)
    native, limited = places
    assert (native.isa, native.difference, native.agrees, native.slowdown) == (None, 0.0, True, 1.0)
    assert (limited.isa, limited.agrees) == ("avx2", False)
    assert limited.difference > TOLERANCE
    assert limited.latency_s > 0
    assert not any("avx512" in kernel for kernel in limited.kernels or ())
    envelope = Envelope("bundle", 1.2, "openvino", (1, BATCH), {"input": (1,)}, {"model": "CPU"}, (), places)
    page = envelope_page(envelope)
    assert [notice.title for notice in page.notices] == ["Other outputs"]
    html = render_html(page)
    assert "Older instruction sets" in html
    assert "all that this CPU has" in html
    assert envelope_page(replace(envelope, isas=())).sections[-1].key == "envelope"

"""What nncf makes of a whole network stands beside our plans: the real tool, in a process of its own."""

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from pipeline.comparison.nncf_int8 import _in_own_process, quantised
from pipeline.context import Run
from profilers.measure import save_feeds
from profilers.probe_models import write_probe_models
from targets.errors import RuntimeMissingError

pytest.importorskip("nncf", reason="nncf is not installed: pip install 'spdy-edge[int8]'")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_probe_models(tmp_path_factory.mktemp("dense"), 2, np.random.default_rng(0))["channel"][
        "conv3x3, channel"
    ][0.0]


@pytest.fixture(scope="module")
def inputs() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((8, 64, 14, 14)).astype(np.float32)


def run(path: Path, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": inputs[i : i + 2]})[0] for i in range(0, len(inputs), 2)])


def largest_weight(path: Path) -> int:
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return max(int(np.abs(array.astype(int)).max()) for array in arrays if array.dtype == np.int8 and array.ndim == 4)


@pytest.mark.parametrize(("eight_bits", "most"), [(True, 128), (False, 64)])
def test_the_network_computes_in_int8_and_says_nearly_the_same(
    dense: Path, inputs: NDArray[np.float32], tmp_path: Path, eight_bits: bool, most: int
) -> None:
    save_feeds(tmp_path / "inputs.npz", {"input": inputs})
    out = tmp_path / "int8.onnx"
    _in_own_process([str(dense), str(tmp_path / "inputs.npz"), str(out)], eight_bits)
    exact, found = run(dense, inputs), run(out, inputs)
    assert 0 < np.abs(found - exact).mean() < 0.1 * np.abs(exact).mean()
    assert most / 2 < largest_weight(out) <= most  # without VNNI, sums of 8-bit products overflow


def test_a_network_that_nncf_cannot_read_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    with pytest.raises(RuntimeMissingError, match="nncf cannot quantise this network: "):
        _in_own_process([str(tmp_path / name) for name in ("broken.onnx", "inputs.npz", "out.onnx")], True)
    assert not (tmp_path / "out.onnx").exists()


def test_without_nncf_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.comparison.nncf_int8.nncf_version", lambda: None)
    with pytest.raises(RuntimeMissingError, match=r"pip install 'spdy-edge\[int8\]'"):
        quantised(cast(Run, None))

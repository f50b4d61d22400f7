"""Exported language models run on every runtime, keep their layers' names, and use DeepSparse's fast kernels."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline.certification.hidden_costs import FAST_KERNELS
from pipeline.exporting.export import (
    PlanPatcher,
    assert_zeros_survive,
    export_onnx,
    export_openvino_ir,
    unit_initialisers,
)
from pipeline.exporting.parity import check_parity, compare_outputs
from pipeline.models.bert import TENSORS, Deployed, QuestionNetwork, SentenceNetwork, TextNetwork
from pipeline.models.inference import torch_predict
from pipeline.models.language import SentenceEmbedding
from pipeline.models.pretrained import find_pretrained
from profilers.measure import Bench, Candidate, Effort
from targets import environments
from targets.errors import ArtifactError
from targets.levels import Level
from targets.registry import get_runtime
from targets.target import Target
from tests.pretrained import KINDS, save_model

BATCH, LENGTH = 2, 16
deepsparse = pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse is not installed")
NETWORKS = {
    "qa": ("AutoModelForQuestionAnswering", QuestionNetwork),
    "classification": ("AutoModelForSequenceClassification", TextNetwork),
    "embedding": ("AutoModel", lambda model, first: SentenceNetwork(model, first, "mean")),
}
CASES = [("bert", name) for name in NETWORKS] + [(kind, "embedding") for kind in KINDS if kind != "bert"]


def _bench(runtime: str, batch: int = BATCH) -> Bench:
    target = Target(name="test", vendor="any", runtime=runtime, threads=1, batch_size=batch)
    return Bench(get_runtime(runtime), target, effort=Effort(timeout_s=120))


def _samples(kinds: int, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(0)
    tokens = np.zeros((count, kinds, LENGTH), np.int64)
    for row, length in zip(tokens, rng.integers(3, LENGTH + 1, count), strict=True):
        row[0, :length], row[1, :length] = rng.integers(4, 80, length), 1
    return tokens


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def exported(request, tmp_path_factory):
    kind, name = request.param
    head, make = NETWORKS[name]
    folder = tmp_path_factory.mktemp("exported")
    found = find_pretrained(save_model(folder, head, kind))
    network = make(found.model(head), found.first_position).eval()
    samples = _samples(len(found.tensors))
    adapter = SentenceEmbedding()  # all have the same units and feeds
    units = [unit for unit in adapter.units(network, torch.from_numpy(samples[:1])) if unit.prunable]
    with torch.no_grad():
        for unit in units:
            network.get_parameter(f"{unit.name}.weight")[::2, ::3] = 0
    path = folder / "model.onnx"
    export_onnx(Deployed(network), adapter.feeds(samples[:BATCH]), path)
    return network, units, path, adapter.feeds(samples), torch_predict(Deployed(network), adapter.feeds)(samples)


def test_the_graph_is_plain_and_takes_named_integers(exported):
    _, _, path, feeds, _ = exported
    graph = onnx.load(path)
    types = {entry.name: entry.type.tensor_type for entry in graph.graph.input}
    assert list(types) == list(feeds) == list(TENSORS[: len(feeds)])
    assert {t.elem_type for t in types.values()} == {onnx.TensorProto.INT64}
    assert {tuple(dim.dim_value for dim in t.shape.dim) for t in types.values()} == {(BATCH, LENGTH)}
    assert graph.ir_version <= 9
    assert not {node.op_type for node in graph.graph.node} & {"Shape", "Where", "Expand", "Range", "Loop", "If"}


def test_every_layer_is_found_and_keeps_its_zeros(exported, tmp_path):
    network, units, path, _, _ = exported
    assert len(units) == 12
    counts = assert_zeros_survive(path, units, network)
    assert list(counts) == [unit.name for unit in units]
    assert len(set(unit_initialisers(path, units).values())) == 12
    PlanPatcher(path, units).write({unit.name: Level("unstructured", 0.75) for unit in units}, tmp_path / "m.onnx")
    for name in unit_initialisers(tmp_path / "m.onnx", units).values():
        (tensor,) = (t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name == name)
        assert (onnx.numpy_helper.to_array(tensor) == 0).mean() == pytest.approx(0.75, abs=0.01)


def test_a_layer_that_is_not_in_the_graph_is_named(exported):
    from dataclasses import replace

    _, units, path, _, _ = exported
    with pytest.raises(ArtifactError, match=r"unit model\.gone \(no such node\)"):
        unit_initialisers(path, [replace(units[0], name="model.gone")])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_runtimes_say_what_torch_says(exported, tmp_path, runtime):
    _, _, path, feeds, expected = exported
    assert check_parity(expected, path, feeds, runtime).max_rel < 1e-4
    if runtime == "openvino":
        export_openvino_ir(path, tmp_path / "model.xml")
        assert check_parity(expected, tmp_path / "model.xml", feeds, runtime).max_rel < 1e-4


@pytest.mark.deepsparse
@deepsparse
def test_deepsparse_says_the_same_with_its_fast_kernels(exported):
    _, _, path, feeds, expected = exported
    bench = _bench("deepsparse")
    found = bench.infer(Candidate("model", path), feeds)
    assert compare_outputs("deepsparse", str(path), expected, found).max_rel < 1e-3
    assert bench.kernel_support(Candidate("model", path)) == (1.0, [])


@pytest.mark.deepsparse
@deepsparse
def test_operations_without_fast_kernels_are_named(tmp_path):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x).sum(1)

    export_onnx(Odd(), {"x": np.zeros((BATCH, 8), np.float32)}, tmp_path / "odd.onnx")
    fraction, unsupported = _bench("deepsparse").kernel_support(Candidate("odd", tmp_path / "odd.onnx"))
    assert fraction is not None
    assert fraction < FAST_KERNELS
    assert unsupported == ["ReduceSum /ReduceSum, keepdims != 1"]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_other_runtimes_have_nothing_to_tell_and_count_layers_by_name(exported, runtime):
    _, units, path, _, _ = exported
    bench = _bench(runtime)
    assert bench.kernel_support(Candidate("model", path)) == (None, [])
    times_s = bench.layer_times(Candidate("model", path)).nodes_s
    assert times_s
    text = json.dumps(sorted(times_s))
    assert all(f"/{unit.name.rsplit('.', 1)[-1]}/MatMul" in text for unit in units)


@pytest.mark.slow
@pytest.mark.deepsparse
@deepsparse
def test_minilm_runs_everywhere(minilm, tmp_path: Path):
    """A real network at 128 tokens, on all runtimes."""
    adapter = SentenceEmbedding()
    (tmp_path / "sts.csv").write_text("".join(f"a dog runs {'far ' * n},a cat sleeps,{n}\n" for n in range(6)))
    splits = adapter.load_data(tmp_path / "sts.csv", minilm, 128)
    network = adapter.load(minilm, splits)
    samples = splits.train.inputs(np.arange(4))
    feeds, path = adapter.feeds(samples), tmp_path / "model.onnx"
    expected = torch_predict(adapter.deployed(network), adapter.feeds)(samples)
    export_onnx(adapter.deployed(network), {name: array[:1] for name, array in feeds.items()}, path)
    assert len(unit_initialisers(path, adapter.units(network, torch.from_numpy(samples[:1])))) == 36
    for runtime in ("onnxruntime", "openvino"):
        assert check_parity(expected, path, feeds, runtime).max_rel < 1e-4
    bench = _bench("deepsparse", batch=1)
    assert compare_outputs("deepsparse", "m", expected, bench.infer(Candidate("m", path), feeds)).max_rel < 1e-3
    assert bench.kernel_support(Candidate("m", path)) == (1.0, [])

"""Heads and neurons of encoders: removing them is zeroing them, and their layers run in int8."""

import copy

import numpy as np
import onnx
import pytest
import torch

from pipeline.exporting.export import PlanPatcher, export_onnx
from pipeline.exporting.graph import ExportedGraph
from pipeline.families.channel import kept_count
from pipeline.families.ranges import measure_ranges
from pipeline.families.registry import units_of
from pipeline.models.bert import Deployed, SentenceNetwork
from pipeline.models.inference import torch_predict
from pipeline.models.language import SentenceEmbedding
from pipeline.models.pretrained import find_pretrained
from targets.levels import Level
from tests.families.conftest import LARGEST
from tests.pretrained import save_model

BATCH, LENGTH = 2, 16


@pytest.fixture(scope="module", params=["bert", "distilbert"])
def encoder(request, tmp_path_factory):
    """Network, units, file and samples of two layers."""
    found = find_pretrained(save_model(tmp_path_factory.mktemp("encoder"), "AutoModel", request.param))
    network = SentenceNetwork(found.model("AutoModel"), found.first_position, "mean").eval()
    samples = np.ones((BATCH, len(found.tensors), LENGTH), np.int64)
    samples[:, 0] = np.random.default_rng(0).integers(4, 80, (BATCH, LENGTH))
    samples[:, 2:] = 0
    adapter = SentenceEmbedding()
    layers = [unit for unit in adapter.units(network, torch.from_numpy(samples[:1])) if unit.prunable]
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_onnx(Deployed(network), adapter.feeds(samples), path)
    return network, units_of(layers, adapter.widths(network), ("channel", "int8")), path, samples, adapter


def run(path, feeds):
    import onnxruntime

    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def test_half_the_heads_and_neurons_are_gone_and_give_what_zeros_give(encoder, tmp_path):
    network, units, path, samples, adapter = encoder
    assert [unit.name.rsplit(".", 1)[1] for unit in units] == ["heads", "neurons"] * 2
    zeroed, masks = copy.deepcopy(network), {}
    for cut in (cut for unit in units for cut in unit.cuts):
        weight = zeroed.get_parameter(f"{cut.consumer}.weight")
        mask = torch.zeros(weight.shape[0], cut.count, cut.size, dtype=torch.bool)
        mask[:, torch.randperm(cut.count)[: cut.count // 2]] = True
        masks[cut.consumer] = mask.flatten(1).numpy()
        with torch.no_grad():
            weight.mul_(mask.flatten(1))
    PlanPatcher(path, units).write_masks(masks, tmp_path / "half.onnx", {u.name: Level("channel", 0.5) for u in units})
    expected = torch_predict(Deployed(zeroed), adapter.feeds)(samples)
    np.testing.assert_allclose(run(tmp_path / "half.onnx", adapter.feeds(samples)), expected, atol=1e-4)
    graph = ExportedGraph(onnx.load(tmp_path / "half.onnx"))
    for cut in (cut for unit in units for cut in unit.cuts):
        shapes = {graph.weight(producer).shape[0] for producer in cut.producers}
        assert shapes == {graph.weight(cut.consumer).shape[1]} == {kept_count(cut, 0.5) * cut.size}


def test_every_layer_runs_in_int8(encoder, tmp_path):
    _, units, path, samples, adapter = encoder
    feeds = adapter.feeds(samples)
    ranges = measure_ranges(path, [layer.name for unit in units for layer in unit.layers], [feeds], LARGEST)
    plan = {unit.name: Level("channel", 0.5, "int8") for unit in units}
    PlanPatcher(path, units, ranges).write(plan, tmp_path / "mixed.onnx")
    plan = {unit.name: Level(precision="int8") for unit in units}
    PlanPatcher(path, units, ranges).write(plan, tmp_path / "int8.onnx")
    for name in ("mixed", "int8"):
        onnx.checker.check_model(onnx.load(tmp_path / f"{name}.onnx"), full_check=True)
        assert np.isfinite(run(tmp_path / f"{name}.onnx", feeds)).all()
    assert np.abs(run(tmp_path / "int8.onnx", feeds) - run(path, feeds)).max() < 0.15

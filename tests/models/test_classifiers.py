"""Units, losses and scores of the classifiers' adapter."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from pipeline.models.classifiers import ResNetAdapter
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.models.resnet import VARIANTS
from pipeline.models.tracing import trace_units
from targets.errors import ConfigError
from tests.models.splits import stripes


def _units(name, shape):
    adapter = get_adapter(name)
    model = VARIANTS[name].build(10, shape[0])
    return model, adapter.units(model, torch.zeros(1, *shape))


def test_units_of_a_cifar_network_in_execution_order():
    model, units = _units("resnet:20", (3, 32, 32))
    names = [f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    assert [unit.name for unit in units] == ["conv1", *names, "linear"]
    assert [unit.name for unit in units if not unit.prunable] == ["conv1", "linear"]
    assert all(unit.shape == tuple(model.get_parameter(f"{unit.name}.weight").shape) for unit in units)
    assert all(unit.members == (unit.name,) for unit in units)
    groups = {unit.name: unit.latency_group for unit in units}
    assert groups["conv1"] == "conv:3x16x3x1@32x32"
    assert groups["layer2.0.conv1"] == "conv:16x32x3x2@32x32"
    assert groups["layer3.2.conv2"] == "conv:64x64x3x1@8x8"
    assert groups["linear"] == "linear:64x10@1"
    assert len(set(groups.values())) == 7


def test_units_of_a_bottleneck_network_hold_the_projections():
    _, units = _units("resnet:50", (3, 64, 64))
    assert len(units) == 54
    assert [unit.name for unit in units[:6]] == [
        "conv1",
        "layer1.0.conv1",
        "layer1.0.conv2",
        "layer1.0.conv3",
        "layer1.0.downsample.0",
        "layer1.1.conv1",
    ]
    assert units[-1].name == "fc"
    assert not units[-1].prunable


def test_tracing_follows_execution_and_not_definition_and_restores_the_mode():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(6, 2)
            self.first = nn.Conv2d(4, 6, (1, 3), stride=2, groups=2)
            self.unused = nn.Linear(1, 1)

        def forward(self, x):
            return self.last(self.first(x).flatten(2).transpose(1, 2))

    model = Backwards().train()
    units = trace_units(model, torch.zeros(1, 4, 5, 7), dense=("first",))
    assert [(unit.name, unit.kind, unit.prunable) for unit in units] == [
        ("first", "conv", False),
        ("last", "linear", True),
    ]
    assert [unit.latency_group for unit in units] == ["conv:4x6x1-3x2/2@5x7", "linear:6x2@9"]
    assert model.training
    assert not model.first._forward_pre_hooks


def test_a_layer_that_runs_twice_is_refused_unless_it_stays_dense():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.shared = nn.Linear(3, 3)

        def forward(self, x):
            return self.shared(self.shared(x))

    with pytest.raises(ConfigError, match="shared runs more than once a sample"):
        trace_units(Shared(), torch.zeros(1, 3))
    assert [unit.prunable for unit in trace_units(Shared(), torch.zeros(1, 3), dense=("shared",))] == [False]


def test_blocks_are_the_residual_blocks():
    model, _ = _units("resnet:20", (3, 32, 32))
    assert get_adapter("resnet:20").blocks(model) == [f"layer{s}.{b}" for s in (1, 2, 3) for b in (0, 1, 2)]


def test_calibration_loss_is_the_divergence_from_the_dense_network():
    rng = np.random.default_rng(0)
    ours, dense = rng.normal(0, 3, (2, 50, 10)).astype(np.float32)
    p = softmax(dense.astype(np.float64), axis=1)
    expected = (p * (log_softmax(dense.astype(np.float64), axis=1) - log_softmax(ours.astype(np.float64), axis=1))).sum(
        1
    )
    adapter = get_adapter("resnet:20")
    found = adapter.calibration_loss(torch.from_numpy(ours), torch.from_numpy(dense))
    assert found.numpy() == pytest.approx(expected, rel=1e-4)
    same = adapter.calibration_loss(torch.from_numpy(dense), torch.from_numpy(dense + 7))
    assert same.min() >= 0
    assert same.max() < 1e-6


def test_training_loss_prefers_the_label_and_the_teacher():
    adapter = get_adapter("resnet:20")
    labels, teacher = torch.tensor([0]), torch.tensor([[4.0, 2.0, 0.0]])
    right = adapter.training_loss(teacher, teacher, labels)
    teachers_order_lost = adapter.training_loss(torch.tensor([[4.0, 0.0, 2.0]]), teacher, labels)
    wrong = adapter.training_loss(torch.tensor([[0.0, 2.0, 4.0]]), teacher, labels)
    assert right < teachers_order_lost < wrong


def test_evaluation_counts_every_test_sample_once():
    data, adapter = stripes(2600), ResNetAdapter(VARIANTS["resnet:20"])
    bright = np.arange(8) // 2

    def predict(inputs):
        rows = inputs.sum(axis=(1, 3))
        return np.stack([rows[:, bright == label].sum(axis=1) for label in range(4)], axis=1)

    score = adapter.evaluate(predict, data)
    assert score.metric == "top-1 accuracy"
    assert score.per_sample.shape == (1300,)
    assert score.value == 1.0
    shifted = adapter.evaluate(lambda inputs: np.roll(predict(inputs), 1, axis=1), data)
    assert shifted.value == 0.0


def test_torch_predict_is_the_network_in_eval_mode():
    model = VARIANTS["resnet:20"].build(4, 1)
    inputs = stripes(64).train.inputs(np.arange(40))
    found = torch_predict(model, batch_size=7)(inputs)
    with torch.no_grad():
        assert found == pytest.approx(model.eval()(torch.from_numpy(inputs)).numpy(), abs=1e-5)

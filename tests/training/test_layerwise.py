import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from calibration.batch_norm import reestimate_batch_norm
from calibration.paired import paired_moments
from pipeline.training import layerwise
from pipeline.training.layerwise import correct_layers
from tests.training.networks import ADAPTER, DATA, UNITS, dense_network, pruned_network


class Two(nn.Module):
    """Two linear layers with biases, or convolutions of two groups."""

    def __init__(self, grouped: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, 3, padding=1, groups=2) if grouped else nn.Linear(8, 10)
        self.second = nn.Conv2d(6, 4, 3, groups=2) if grouped else nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def damaged(grouped: bool) -> tuple[Two, Two, list[Tensor]]:
    """A network, a copy without half of its weights, and batches of inputs."""
    torch.manual_seed(0)
    dense = Two(grouped)
    compressed = copy.deepcopy(dense)
    for layer in (compressed.first, compressed.second):
        with torch.no_grad():
            layer.weight *= layer.weight.abs() > layer.weight.abs().median()
    shape = (4, 5, 5) if grouped else (8,)
    return dense.eval(), compressed.eval(), [torch.randn(40, *shape) for _ in range(3)]


def error(network: nn.Module, dense: nn.Module, batches: list[Tensor]) -> float:
    with torch.no_grad():
        return sum(float((network(x) - dense(x)).square().sum()) for x in batches)


@pytest.mark.parametrize("grouped", [False, True])
def test_moments_are_those_of_the_columns(grouped):
    dense, compressed, batches = damaged(grouped)
    found = paired_moments(compressed, dense, "second", batches)
    x, y = (
        torch.cat([torch.relu(network.first(batch)).detach() for batch in batches]).double()
        for network in (compressed, dense)
    )
    if grouped:
        x, y = (
            nn.functional.unfold(part, 3).reshape(len(part), 2, 27, -1).permute(1, 2, 0, 3).flatten(2)
            for part in (x, y)
        )
    else:
        x, y = x.T[None], y.T[None]
    np.testing.assert_allclose(found.own, x @ x.transpose(1, 2), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.cross, y @ x.transpose(1, 2), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.own_sum, x.sum(dim=2), rtol=1e-4, atol=1e-4)
    assert found.count == x.shape[2]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_last_layer_is_the_least_squares_fit_from_its_real_inputs(grouped, monkeypatch):
    monkeypatch.setattr(layerwise, "RIDGE", 1e-9)
    dense, compressed, batches = damaged(grouped)
    correct_layers(compressed, dense, ["second"], batches)
    found = error(compressed, dense, batches)
    kept = compressed.second.weight != 0
    optimiser = torch.optim.LBFGS(compressed.second.parameters(), lr=1, max_iter=100, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimiser.zero_grad()
        loss = sum((compressed(x) - dense(x).detach()).square().sum() for x in batches)
        loss.backward()
        compressed.second.weight.grad *= kept
        return loss

    optimiser.step(step)
    assert found == pytest.approx(error(compressed, dense, batches), rel=1e-3)


def test_each_option_does_more_than_the_one_before_and_zeros_stay():
    dense, compressed, batches = damaged(False)
    only_biases = copy.deepcopy(compressed)
    zeros = {name: value == 0 for name, value in compressed.named_parameters() if name.endswith("weight")}
    before = error(compressed, dense, batches)
    correct_layers(only_biases, dense, ["first", "second"], batches, weights=False)
    for name in ("first", "second"):
        assert torch.equal(only_biases.get_submodule(name).weight, compressed.get_submodule(name).weight)
    correct_layers(compressed, dense, ["first", "second"], batches)
    assert error(compressed, dense, batches) < error(only_biases, dense, batches) < before
    assert all((value[zeros[name]] == 0).all() for name, value in compressed.named_parameters() if name in zeros)


def test_a_dense_network_stays_as_it_is():
    dense, _, batches = damaged(False)
    same = copy.deepcopy(dense)
    correct_layers(same, dense, ["first", "second"], batches)
    for name, value in same.named_parameters():
        torch.testing.assert_close(value, dense.get_parameter(name), rtol=1e-4, atol=1e-5)


def test_a_pruned_residual_network_comes_nearer_to_the_dense_one():
    dense, (pruned, _) = dense_network(), pruned_network(0.8)
    inputs = torch.from_numpy(DATA.train.inputs(np.arange(256)))
    learnt, judged = torch.split(inputs[:192], 64), inputs[192:]

    def loss(network: nn.Module) -> float:
        reestimate_batch_norm(network, learnt)
        with torch.no_grad():
            return float(ADAPTER.calibration_loss(network(judged), dense(judged)).mean())

    before = loss(pruned)
    correct_layers(pruned, dense, UNITS, learnt)
    assert loss(pruned) < before

import pytest
import torch
from torch import nn

from calibration.statistics import collect_statistics
from pipeline.compression.adaprune import adaprune
from pipeline.compression.hessians import reconstruction_error
from pipeline.compression.solvers import least_squares


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Conv2d(4, 6, 3, padding=1), (64, 4, 5, 5)), (nn.Linear(10, 6), (96, 10))],
    ids=["conv", "linear"],
)
def test_between_masking_and_least_squares_on_its_own_mask(layer, shape):
    inputs = torch.relu(torch.randn(shape) + 0.3)
    before = layer.weight.detach().clone()
    ((_, statistics),) = collect_statistics(nn.Sequential(layer), ["0"], [inputs])
    dense = before.flatten(1).double().numpy()
    previous = dense
    for sparsity, (weight, mask) in zip((0.4, 0.6, 0.8), adaprune(layer, inputs, [0.4, 0.6, 0.8]), strict=True):
        assert mask.sum() == round((1 - sparsity) * dense.size)
        assert not weight[~mask].any()
        error = reconstruction_error(statistics.hessian, dense, weight)
        assert error < reconstruction_error(statistics.hessian, dense, previous * mask)
        best = least_squares(statistics.hessian, dense, mask)
        assert error >= reconstruction_error(statistics.hessian, dense, best)
        previous = weight
    assert torch.equal(layer.weight, before)
    assert layer.weight.grad is None
    assert layer.bias.grad is None

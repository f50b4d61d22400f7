import numpy as np
import pytest
import torch
from torch import nn

from calibration.statistics import collect_statistics
from pipeline.compression.adaprune import adaprune, adaprune_plans
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


def test_as_a_solver_it_fills_a_database_whose_errors_least_squares_beats(job, tmp_path, database, levels):
    batches = list(torch.randn(64, 3, 6, 6).split(32))
    built = job.build(tmp_path, plans=adaprune_plans(job.units, levels, job.model, batches))
    made = adaprune(job.model[0], torch.cat(batches), [level.amount for level in levels[1:]])
    for level, (weight, _) in zip(levels[1:], made, strict=True):
        np.testing.assert_allclose(built.get("unit 0", level)[0].reshape(weight.shape), weight, rtol=1e-6)
    assert (built.errors()[:, 1:] > database.errors()[:, 1:]).all()

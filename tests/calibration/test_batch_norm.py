import pytest
import torch
from torch import nn

from calibration.batch_norm import reestimate_batch_norm
from calibration.errors import DataError


def test_statistics_are_the_means_over_all_samples():
    norm = nn.BatchNorm2d(3)
    norm.running_mean.fill_(50)
    data = torch.randn(40, 3, 5, 5) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + 7
    batches = data.split(16)  # the last one is half as large
    reestimate_batch_norm(nn.Sequential(norm), batches)
    torch.testing.assert_close(norm.running_mean, data.mean((0, 2, 3)))
    within = sum(len(batch) * batch.var((0, 2, 3)) for batch in batches) / 40
    torch.testing.assert_close(norm.running_var, within)
    assert norm.momentum == 0.1


def test_repairs_a_network_whose_weights_were_scaled():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2))
    data = torch.randn(64, 3, 8, 8)
    reestimate_batch_norm(model, data.split(32))
    before = model(data)
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight *= 5
            layer.bias *= 5
    assert (model(data) - before).abs().max() > 0.1
    reestimate_batch_norm(model, data.split(32))
    assert (model(data) - before).abs().max() < 1e-3


def test_model_ends_in_eval_mode_and_only_batch_norm_learns():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(4)).train()
    data = torch.randn(8, 4)
    reestimate_batch_norm(model, [data])
    assert not any(module.training for module in model.modules())
    torch.testing.assert_close(model[1].running_mean, data.mean(0))  # dropout was off


def test_no_data_and_broken_data():
    model = nn.Sequential(nn.BatchNorm1d(2))
    with pytest.raises(DataError, match="at least one batch"):
        reestimate_batch_norm(model, [])
    with pytest.raises(DataError, match="batch norm 0 hold NaN"):
        reestimate_batch_norm(model, [torch.full((4, 2), float("nan"))])

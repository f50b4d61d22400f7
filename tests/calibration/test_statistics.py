import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from calibration import statistics
from calibration.errors import DataError
from calibration.statistics import capture_inputs, collect_statistics


def _direct(layer, inputs):
    """H = 2XXᵀ from torch's own unfold, in float64."""
    inputs = inputs.double()
    if isinstance(layer, nn.Linear):
        x = inputs.reshape(-1, layer.in_features).T
        return (2 * x @ x.T).numpy()[None]
    if layer.padding == "same":
        inputs = functional.pad(inputs, (1, 1, 1, 1))
    padding = 0 if layer.padding == "same" else layer.padding
    columns = functional.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
    x = columns.transpose(0, 1).reshape(layer.groups, layer.weight[0].numel(), -1)
    return (2 * x @ x.transpose(1, 2)).numpy()


LAYERS = [
    nn.Conv2d(4, 6, 3, padding=1),
    nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    nn.Conv2d(4, 6, 3, padding="same"),
    nn.Conv2d(4, 6, 1, stride=2),
    nn.Conv2d(4, 8, 3, groups=2, padding=1),
    nn.Conv2d(4, 4, 3, groups=4, stride=2),
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
@pytest.mark.parametrize("chunk_bytes", [1, 2**25])
def test_convolution_is_equal_to_the_definition(layer, chunk_bytes, monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK_BYTES", chunk_bytes)
    inputs = torch.randn(7, 4, 9, 8)
    ((name, found),) = collect_statistics(nn.Sequential(layer), ["0"], [inputs[:4], inputs[4:]])
    expected = _direct(layer, inputs)
    assert name == "0"
    assert found.samples == 7
    assert found.hessian.dtype == np.float64
    assert found.hessian.shape == (expected.shape if layer.groups > 1 else expected.shape[1:])
    assert np.linalg.norm(found.hessian - expected) < 1e-5 * np.linalg.norm(expected)


def test_quadratic_form_is_the_squared_output_difference():
    layer = nn.Conv2d(3, 5, 3, padding=1, bias=False).double()
    inputs = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    ((_, found),) = collect_statistics(nn.Sequential(layer), ["0"], [inputs])
    change = torch.randn_like(layer.weight)
    rows = change.flatten(1).numpy()
    squared = functional.conv2d(inputs, change, padding=1).square().sum().item()
    assert 0.5 * np.einsum("ij,jk,ik->", rows, found.hessian, rows) == pytest.approx(squared, rel=1e-12)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 5, 3, padding=1), nn.Linear(6, 2)], ids=str)
def test_kept_columns_are_columns_of_x_in_the_order_of_the_weight(layer):
    """All that there are of each of two batches: they alone make the Hessian."""
    inputs = torch.randn(4, 3, 6, 6)
    count = 2 * 36 if isinstance(layer, nn.Conv2d) else 2 * 18
    ((_, found),) = collect_statistics(nn.Sequential(layer), ["0"], inputs.split(2), columns_a_batch=count)
    assert found.columns.shape == (2 * count, layer.weight[0].numel())
    np.testing.assert_allclose(2 * found.columns.T @ found.columns, found.hessian, rtol=1e-4, atol=1e-3)
    ((_, plain),) = collect_statistics(nn.Sequential(layer), ["0"], [inputs])
    assert plain.columns is None


def test_linear_with_many_positive_inputs_stays_near_float64():
    inputs = torch.rand(400, 50, 16) + 3  # sums of many like terms are where float32 loses most
    ((_, found),) = collect_statistics(nn.Sequential(nn.Linear(16, 2)), ["0"], inputs.split(64))
    expected = _direct(nn.Linear(16, 2), inputs)[0]
    assert np.abs(found.hessian / expected - 1).max() < 1e-5


def test_one_pass_unless_memory_is_short(tmp_path):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    batches = [torch.randn(5, 8) for _ in range(3)]
    names = ["4", "0", "2"]
    steps: list[tuple[int, int]] = []
    whole = dict(collect_statistics(model, names, batches, progress=lambda done, total: steps.append((done, total))))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    steps.clear()
    two_at_a_time = dict(
        collect_statistics(model, names, batches, 2 * 8 * 64, lambda done, total: steps.append((done, total)))
    )
    assert steps[-1] == (6, 6)
    assert list(whole) == list(two_at_a_time) == names
    for name in names:
        np.testing.assert_array_equal(whole[name].hessian, two_at_a_time[name].hessian)
    with pytest.raises(ValueError, match="2 passes"):
        list(collect_statistics(model, names, iter(batches), 2 * 8 * 64))


def test_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 4)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    list(collect_statistics(model, ["3"], [torch.randn(6, 4)]))
    assert model.training
    assert not model[1].training
    assert not model[3]._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_activations_name_the_first_layer(bad):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight[1, 2] = bad
    with pytest.raises(DataError, match="layer 1 hold NaN"):
        list(collect_statistics(model, ["0", "1", "2"], [torch.randn(3, 4)]))
    assert not model[0]._forward_pre_hooks


def test_layers_without_statistics():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with pytest.raises(ValueError, match="1 is a ReLU"):
        list(collect_statistics(model, ["1"], [torch.randn(3, 4)]))
    with pytest.raises(DataError, match="Layer 0 saw no data"):
        list(collect_statistics(model, ["0"], []))


def test_captured_inputs_are_what_the_layer_saw():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    inputs = torch.randn(7, 4)
    captured = capture_inputs(model, "2", inputs.split(3))
    torch.testing.assert_close(captured, functional.relu(model[0](inputs)).detach())
    with pytest.raises(DataError, match="saw no data"):
        capture_inputs(model, "2", [])


class _Padded(nn.Module):
    """Two layers over positions, of which those that begin with 0 are padding; it drops the last if nobody has it."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def real_positions(self, samples):
        real = samples[..., 0] != 0
        return real[:, : int(real.any(dim=0).nonzero().max()) + 1]

    def forward(self, samples):
        return self.head(self.inner(samples[:, : self.real_positions(samples).shape[1]]).sum(1))


def test_padding_is_not_counted():
    model, samples = _Padded(), torch.randn(6, 5, 3)
    samples[:2, 2:, 0] = 0
    samples[:, 4:, 0] = 0
    found = dict(collect_statistics(model, ["inner", "head"], [samples[:3], samples[3:]]))
    rows = samples[samples[..., 0] != 0].double()
    assert len(rows) == 2 * 2 + 4 * 4
    assert found["inner"].hessian == pytest.approx((2 * rows.T @ rows).numpy(), rel=1e-5)
    assert found["inner"].samples == found["head"].samples == 6
    pooled = model.inner(samples[:, :4]).sum(1).double()
    assert found["head"].hessian == pytest.approx((2 * pooled.T @ pooled).detach().numpy(), rel=1e-5)

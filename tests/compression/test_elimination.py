import numpy as np
import pytest
import torch

from pipeline.compression import elimination
from pipeline.compression.elimination import _Remaining, eliminate
from pipeline.compression.hessians import Matrix, reconstruction_error
from pipeline.compression.solvers import least_squares, obs_levels
from targets.levels import sparsity_grid
from tests.compression.problems import layer


def exact_obs(hessian: Matrix, weight: Matrix, sparsity: float) -> float:
    """Error of ExactOBS: one weight at a time in every row, all rows' losses sorted together."""
    losses, traces = [], []
    for row in weight:
        inverse, current, left = np.linalg.inv(hessian), row.copy(), list(range(len(row)))
        trace = [current.copy()]
        for _ in row:
            costs = current[left] ** 2 / np.diag(inverse)[left] / 2
            gone = left.pop(int(np.argmin(costs)))
            losses.append((max(costs.min(), losses[-1][0] if len(trace) > 1 else 0), len(traces)))
            current -= current[gone] / inverse[gone, gone] * inverse[:, gone]
            current[gone] = 0
            inverse = inverse - np.outer(inverse[:, gone], inverse[gone]) / inverse[gone, gone]
            trace.append(current * np.isin(np.arange(len(row)), left))
        traces.append(trace)
    dropped = weight.size - round((1 - sparsity) * weight.size)
    rows = [row for _, row in sorted(losses)[:dropped]]
    chosen = np.array([trace[rows.count(row)] for row, trace in enumerate(traces)])
    return reconstruction_error(hessian, weight, chosen)


@pytest.mark.parametrize(("size", "seed"), [(9, 0), (32, 1), (64, 2), (150, 3)])
def test_as_good_as_one_weight_at_a_time(size, seed):
    hessian, weight, _ = layer(5, size, seed)
    sparsities = [0.3, 0.5, 0.8, 0.9]
    for sparsity, (level, _) in zip(sparsities, obs_levels(hessian, weight, sparsities), strict=True):
        assert reconstruction_error(hessian, weight, level) <= 1.02 * exact_obs(hessian, weight, sparsity)


def test_predicted_loss_is_the_actual_one_and_compensation_is_least_squares():
    hessian, weight, _ = layer(3, 40)
    inverse = torch.from_numpy(np.linalg.inv(hessian)).repeat(3, 1, 1)
    remaining = _Remaining.pack(inverse, torch.from_numpy(weight.copy()), torch.arange(40).expand(3, 40))
    mask, predicted = np.ones(weight.shape, bool), np.zeros(3)
    for left, count in ((40, 1), (39, 7), (32, 4), (28, 2), (26, 5)):
        if left == 28:
            remaining = remaining.packed(left)
        chosen = remaining.cheapest(count)
        predicted += remaining.remove(chosen).sum(dim=1).numpy()
        np.put_along_axis(mask, remaining.columns.gather(1, chosen).numpy(), False, axis=1)
        solved = least_squares(hessian, weight, mask)
        known = np.take_along_axis(solved, remaining.columns.numpy(), axis=1)
        np.testing.assert_allclose((remaining.weight * remaining.alive).numpy(), known, atol=1e-9)
        for row in range(3):
            actual = reconstruction_error(hessian, weight[row : row + 1], solved[row : row + 1])
            assert predicted[row] == pytest.approx(actual, rel=1e-9)


def test_first_loss_is_the_error_without_the_cheapest_weight():
    hessian, weight, _ = layer(1, 10)
    losses, turns = eliminate(hessian, weight)
    errors = []
    for column in range(10):
        mask = np.ones((1, 10), bool)
        mask[0, column] = False
        errors.append(reconstruction_error(hessian, weight, least_squares(hessian, weight, mask)))
    assert turns[0, int(np.argmin(errors))] == 0
    assert losses.min() == pytest.approx(min(errors))
    assert sorted(turns[0]) == list(range(10))


def test_chunks_of_rows_change_nothing(monkeypatch):
    hessian, weight, _ = layer(7, 90)
    whole = eliminate(hessian, weight)
    monkeypatch.setattr(elimination, "CHUNK_BYTES", 1)
    for left, right in zip(whole, eliminate(hessian, weight), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-8)


def test_fewer_samples_than_inputs():
    hessian, weight, _ = layer(6, 120, samples=30)
    sparsities = [level.amount for level in sparsity_grid()[1:]]
    for level, mask in obs_levels(hessian, weight, sparsities):
        assert np.isfinite(level).all()
        masked = reconstruction_error(hessian, weight, weight * mask)
        assert reconstruction_error(hessian, weight, level) <= masked
    some, _ = next(iter(obs_levels(hessian, weight, [0.7])))  # 36 weights a row are enough to fit 30 samples
    assert reconstruction_error(hessian, weight, some) < 1e-6 * reconstruction_error(hessian, weight, 0 * weight)

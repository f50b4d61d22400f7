"""Channels: what goes is what costs least, the rest is the best there is, and removing them is zeroing them."""

import copy
from itertools import combinations

import numpy as np
import onnx
import pytest
import torch

from calibration.statistics import LayerStatistics
from pipeline.compression.hessians import reconstruction_error
from pipeline.exporting.graph import ExportedGraph
from pipeline.families.channel import (
    CHANNEL_CRITERIA,
    Channel,
    by_leverage,
    by_norm,
    by_obs,
    by_sensitivity,
    inputs_of,
    kept_count,
    least_squares,
    leverages,
    sensitivities,
)
from pipeline.families.registry import layer_levels
from pipeline.models.base import Cut, Unit
from targets.levels import DENSE, Level
from tests.families.conftest import Exported

CUT = Cut(("writer",), "reader", 6, size=2, step=1)


def seen(seed: int) -> tuple[LayerStatistics, np.ndarray]:
    """Statistics of 200 correlated inputs of 12 columns, and weights [5, 12]: six groups of two columns."""
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((12, 12)) @ rng.standard_normal((12, 200))
    return LayerStatistics(2 * inputs @ inputs.T, 200, inputs.T.astype(np.float32)), rng.standard_normal((5, 12))


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hessian [12, 12] and weights [5, 12]."""
    statistics, weight = seen(seed)
    return statistics.hessian, weight


@pytest.mark.parametrize("seed", range(5))
def test_the_first_group_to_go_is_the_one_that_brute_force_finds(seed: int) -> None:
    hessian, weight = problem(seed)
    groups = inputs_of(CUT, 12)
    errors = []
    for gone in range(6):
        kept = np.delete(groups, gone, axis=0).ravel()
        errors.append(reconstruction_error(hessian, weight, least_squares(hessian, weight, kept)))
    (gone,) = by_obs(hessian, weight, groups, [1])
    assert gone.tolist() == [np.argmin(errors)]


def test_greedy_removal_is_near_the_best_of_all_choices_and_better_than_any_other_criterion() -> None:
    found: dict[str, list[float]] = {name: [] for name in CHANNEL_CRITERIA}
    for seed in range(8):
        hessian, weight = problem(seed)
        groups = inputs_of(CUT, 12)

        def error(gone: np.ndarray, hessian=hessian, weight=weight, groups=groups) -> float:
            kept = np.sort(np.delete(groups, gone, axis=0).ravel())
            return reconstruction_error(hessian, weight, least_squares(hessian, weight, kept))

        best = min(error(np.array(gone)) for gone in combinations(range(6), 3))
        for criterion, ratios in found.items():
            (gone,) = CHANNEL_CRITERIA[criterion](seen(seed)[0], weight, groups, [3])
            ratios.append(error(gone) / best)
    assert np.median(found["obs"]) < 1.2
    assert np.mean(found["obs"]) < min(np.mean(ratios) for name, ratios in found.items() if name != "obs")


@pytest.mark.parametrize("criterion", CHANNEL_CRITERIA)
def test_as_many_channels_go_as_are_asked_for(criterion: str) -> None:
    found = CHANNEL_CRITERIA[criterion](*seen(0), inputs_of(CUT, 12), [0, 2, 5])
    assert [len(set(gone.tolist())) for gone in found] == [0, 2, 5]


def test_sensitivities_of_one_output_that_is_never_negative_add_up_to_one() -> None:
    rng = np.random.default_rng(0)
    column, weight = rng.random((1, 12)), rng.random((1, 12))
    assert sensitivities(column, weight, inputs_of(CUT, 12)).sum() == pytest.approx(1)


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_a_channel_share_its_sensitivity(copies: int) -> None:
    columns, weight = np.random.default_rng(1).random((30, 1)), np.array([[0.7]])
    found = sensitivities(columns.repeat(copies, 1), weight.repeat(copies, 1), np.arange(copies)[:, None])
    assert found == pytest.approx(1 / copies)


def test_a_channel_that_alone_makes_an_output_negative_stays() -> None:
    """The third one adds little, but no other has its sign."""
    columns, weight = np.ones((1, 3)), np.array([[4.0, 1.0, -0.1]])
    groups = np.arange(3)[:, None]
    assert sensitivities(columns, weight, groups) == pytest.approx([0.8, 0.2, 1.0])
    assert by_sensitivity(columns, weight, groups, [1])[0] == [1]


def test_sensitivities_do_not_depend_on_how_many_are_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics, weight = seen(3)
    whole = sensitivities(statistics.columns, weight, inputs_of(CUT, 12))
    monkeypatch.setattr("pipeline.families.channel.SENSITIVITY_BYTES", 1)
    np.testing.assert_allclose(sensitivities(statistics.columns, weight, inputs_of(CUT, 12)), whole)


def test_norms_are_those_of_the_papers() -> None:
    weight = np.array([[3.0, 0, 2, 2]])
    groups = np.array([[0, 1], [2, 3]])
    assert by_norm(1, weight, groups, [1])[0] == [0]  # 3 < 4
    assert by_norm(2, weight, groups, [1])[0] == [1]  # 8 < 9


def test_leverages_sum_to_the_rank_and_are_all_one_at_full_rank() -> None:
    vectors = np.linalg.eigh(problem(0)[0])[1]
    for rank in range(13):
        assert leverages(vectors, rank).sum() == pytest.approx(rank)
    np.testing.assert_allclose(leverages(vectors, 12), 1)


def test_a_channel_that_is_never_active_has_no_leverage_and_goes_first() -> None:
    hessian, _ = problem(3)
    hessian[4:6], hessian[:, 4:6] = 0, 0
    assert by_leverage(hessian, inputs_of(CUT, 12), [1])[0] == [2]


def test_least_squares_is_a_minimum_over_the_kept_columns() -> None:
    hessian, weight = problem(0)
    kept = np.array([0, 1, 4, 5, 8, 9])
    solved = least_squares(hessian, weight, kept)
    assert not solved[:, np.setdiff1d(np.arange(12), kept)].any()
    gradient = (solved - weight) @ hessian
    np.testing.assert_allclose(gradient[:, kept], 0, atol=1e-8 * np.abs(weight @ hessian).max())


def test_levels_leave_multiples_of_the_step() -> None:
    def unit(count: int, step: int) -> Unit:
        cut = Cut(("a",), "b", count, 1, step)
        return Unit("block", "block", ("a", "b"), (count, 3), "g", True, 1.0, (cut,))

    assert [level.amount for level in Channel().levels(unit(32, 8), 40)] == [0.25, 0.5, 0.75]
    assert Channel().levels(unit(8, 8), 40) == ()
    for count, step in ((512, 8), (3072, 8), (12, 1), (40, 8)):
        levels = Channel().levels(unit(count, step), 40)
        kept = [kept_count(Cut(("a",), "b", count, 1, step), level.amount) for level in levels]
        assert all(0 < left < count and left % step == 0 for left in kept)
        assert kept == sorted(set(kept), reverse=True)
    assert Channel().levels(Unit("layer", "conv", ("layer",), (8, 8, 3, 3), "g", True), 40) == ()


def half(found: Exported) -> dict[str, Level]:
    return {unit.name: Level("channel", 0.5) if unit.cuts else DENSE for unit in found.units}


@pytest.mark.parametrize("name", ["resnet", "bottlenecks"])
def test_channels_that_are_removed_give_what_channels_that_are_zero_give(name, request, tmp_path) -> None:
    found: Exported = request.getfixturevalue(name)
    zeroed = copy.deepcopy(found.network)
    masks = {}
    for unit in found.units:
        for cut in unit.cuts:
            weight = zeroed.get_parameter(f"{cut.consumer}.weight")
            mask = torch.zeros_like(weight, dtype=torch.bool)
            mask[:, torch.randperm(cut.count)[: cut.count // 2]] = True
            with torch.no_grad():
                weight.mul_(mask)
            masks[cut.consumer] = mask.numpy()
    found.patcher().write_masks(masks, tmp_path / "half.onnx", half(found))
    with torch.no_grad():
        expected = zeroed(torch.from_numpy(found.inputs)).numpy()
    outputs = found.outputs(tmp_path / "half.onnx")
    np.testing.assert_allclose(outputs, expected, atol=1e-4 * np.abs(expected).max())
    graph = ExportedGraph(onnx.load(tmp_path / "half.onnx"))
    for cut in (cut for unit in found.units for cut in unit.cuts):
        assert graph.weight(cut.producers[0]).shape[0] == graph.weight(cut.consumer).shape[1] == cut.count // 2
    assert (tmp_path / "half.onnx").stat().st_size < 0.7 * found.path.stat().st_size


def test_a_plan_says_which_layers_lose_inputs(resnet: Exported) -> None:
    layers = layer_levels(resnet.units, {"layer2.0": Level("channel", 0.5)})
    assert layers["layer2.0.conv2"] == Level("channel", 0.5)
    assert all(level == DENSE for name, level in layers.items() if name != "layer2.0.conv2")

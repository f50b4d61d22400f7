"""Gradual pruning ends at the plan, whatever happens on the way."""

import itertools
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.families.int8 import Int8Training, LayerRanges, Range, Ranges
from pipeline.models.inference import torch_predict
from pipeline.training.blocks import block_error, captured
from pipeline.training.gradual import Goal, GradualSettings, gradual_prune
from pipeline.training.masks import column_masks, nonzero_masks
from targets.errors import ArtifactError
from tests.training.networks import ADAPTER, BLOCKS, DATA, UNITS, dense_network, with_dropout

PLAN = {unit: 0.3 + 0.1 * i for i, unit in enumerate(UNITS)}
SETTINGS = GradualSettings(epochs=4, batch_size=32, mask_interval=4, checkpoint_s=0.0)
STEPS = 4 * 256 // 32


def _prune(model, settings=SETTINGS, plan=PLAN, **more):
    goal = plan if isinstance(plan, Goal) else Goal(plan)
    return gradual_prune(
        model, dense_network(), goal, DATA.train, ADAPTER.training_loss, ADAPTER.training_score, settings, **more
    )


def _zeros(model) -> dict[str, int]:
    return {unit: int((~mask).sum()) for unit, mask in nonzero_masks(model, UNITS).items()}


def _planned() -> dict[str, int]:
    sizes = {unit: dense_network().get_parameter(f"{unit}.weight").numel() for unit in UNITS}
    return {unit: sizes[unit] - round((1 - PLAN[unit]) * sizes[unit]) for unit in UNITS}


def _states_are_equal(first, second) -> bool:
    other = second.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in first.state_dict().items())


def test_it_ends_with_the_exact_counts_of_the_plan_and_still_knows_its_classes():
    model = dense_network()
    record = _prune(model)
    assert _zeros(model) == _planned()
    assert not model.training
    assert model.get_parameter("layer1.0.conv1.weight").is_contiguous()
    assert int((model.get_parameter("conv1.weight") == 0).sum()) == 0
    assert ADAPTER.evaluate(torch_predict(model), DATA).value > 0.9
    assert (record.steps, record.resumed_at_step) == (STEPS, 0)


def test_blocks_that_are_taught_stay_nearer_to_the_dense_ones():
    dense, inputs = dense_network(), torch.from_numpy(DATA.test.inputs(np.arange(64)))
    errors = []
    for weight in (0.0, 5.0):
        model = dense_network()
        _prune(model, replace(SETTINGS, block_weight=weight), blocks=BLOCKS)
        assert _zeros(model) == _planned()
        with torch.no_grad(), captured(model, BLOCKS) as ours, captured(dense, BLOCKS) as theirs:
            model(inputs), dense(inputs)
            errors.append(float(block_error(ours, theirs, None)))
    assert errors[1] < 0.7 * errors[0]


def test_sparsity_starts_low_only_grows_and_is_reached_at_the_declared_share():
    seen = []
    record = _prune(dense_network(), progress=seen.append)
    values = [report.sparsity for report in seen]
    assert values == sorted(values)
    assert values[0] == pytest.approx(0.05, abs=0.01)
    growing = round(SETTINGS.pruning_share * STEPS)
    planned = sum(_planned().values()) / sum(p.numel() for p in map(_weight, UNITS))
    assert values[growing - 1] < values[growing] == values[-1] == pytest.approx(planned)
    assert [report.step for report in seen] == list(range(1, STEPS + 1))
    assert [report.epoch for report in seen] == [step * 4 // STEPS for step in range(STEPS)]
    assert seen[-1].remaining_s == 0
    assert record.history[-1].accuracy == seen[-1].accuracy > 0.5
    assert [epoch.epoch for epoch in record.history] == [0, 1, 2, 3]


def _weight(unit):
    return dense_network().get_parameter(f"{unit}.weight")


def test_pruned_weights_never_come_back():
    zeros = []
    model = dense_network()
    _prune(model, progress=lambda _: zeros.append({u: ~m for u, m in nonzero_masks(model, UNITS).items()}))
    for before, after in itertools.pairwise(zeros):
        assert all(bool((after[unit] | ~before[unit]).all()) for unit in UNITS)


@pytest.mark.parametrize("stop_at", [5, 8, 20, 31])
def test_an_interrupted_run_resumes_to_the_identical_network(tmp_path, stop_at):
    def interrupt(report):
        if report.step == stop_at:
            raise KeyboardInterrupt

    whole = with_dropout(dense_network())
    straight = _prune(whole)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(KeyboardInterrupt):
        _prune(with_dropout(dense_network()), checkpoint=path, progress=interrupt)
    resumed = with_dropout(dense_network())
    record = _prune(resumed, checkpoint=path)
    assert record.resumed_at_step == stop_at
    assert _states_are_equal(whole, resumed)
    assert record.history == straight.history
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_finished_run_is_not_trained_again(tmp_path):
    path, model = tmp_path / "checkpoint.pt", dense_network()
    _prune(model, checkpoint=path)
    again, reports = dense_network(), []
    record = _prune(again, checkpoint=path, progress=reports.append)
    assert not reports
    assert record.resumed_at_step == record.steps
    assert _states_are_equal(model, again)


def test_planned_columns_fade_away_and_no_others_go():
    """Channels are the plan's choice; until they are all gone, their smallest weights go first."""
    model, keeps = dense_network(), {unit: torch.ones_like(_weight(unit), dtype=torch.bool) for unit in UNITS[:2]}
    for mask in keeps.values():
        mask[:, ::2] = False
    goal = Goal({**dict.fromkeys(UNITS[:2], 0.5), UNITS[2]: 0.7}, keeps)
    shares = []

    def look(_):
        zeros = model.get_parameter(f"{UNITS[0]}.weight") == 0
        assert not bool((zeros & keeps[UNITS[0]]).any())
        shares.append(float(zeros.float().mean()))

    _prune(model, plan=goal, progress=look)
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2
    for unit, keep in keeps.items():
        assert torch.equal(model.get_parameter(f"{unit}.weight") != 0, keep)
        assert torch.equal(column_masks(model, [unit])[unit], keep)
    assert _zeros(model)[UNITS[2]] == round(0.7 * _weight(UNITS[2]).numel())
    assert ADAPTER.evaluate(torch_predict(model), DATA).value > 0.9


def test_another_choice_of_columns_is_another_training(tmp_path):
    path, keep = tmp_path / "checkpoint.pt", torch.ones_like(_weight(UNITS[0]), dtype=torch.bool)
    for first in (0, 1):
        mask = keep.clone()
        mask[:, first::2] = False
        goal = Goal({UNITS[0]: 0.5}, {UNITS[0]: mask})
        if first:
            with pytest.raises(ArtifactError, match="another plan"):
                _prune(dense_network(), plan=goal, checkpoint=path)
        else:
            _prune(dense_network(), plan=goal, checkpoint=path)


def test_once_all_zeros_are_there_steps_compute_as_the_network_will():
    """Straight through: int8 is what passes see, and what the weights learn for; the weights themselves stay exact."""
    model, entered = dense_network(), []
    inputs = {unit: LayerRanges(Range(-4.0, 4.0), Range(-4.0, 4.0)) for unit in UNITS}
    int8 = Int8Training(model, UNITS, Ranges(inputs))

    @contextmanager
    def arithmetic():
        before = model.get_parameter(f"{UNITS[0]}.weight").detach().clone()
        with int8():
            inside = model.get_parameter(f"{UNITS[0]}.weight").detach().clone()
            steps = inside.flatten(1) / (inside.flatten(1).abs().amax(1, keepdim=True).clamp_min(1e-9) / 127)
            assert torch.allclose(steps, steps.round(), atol=1e-3)
            assert not torch.equal(before, inside)
            yield
        entered.append(torch.equal(model.get_parameter(f"{UNITS[0]}.weight"), before))

    _prune(model, plan=Goal(PLAN, arithmetic=arithmetic))
    assert entered == [True] * (STEPS - round(SETTINGS.pruning_share * STEPS))
    assert _zeros(model) == _planned()
    assert ADAPTER.evaluate(torch_predict(model), DATA).value > 0.9


def test_the_teacher_is_left_as_it_is():
    dense = dense_network()
    gradual_prune(
        dense_network(), dense, Goal(PLAN), DATA.train, ADAPTER.training_loss, ADAPTER.training_score, SETTINGS
    )
    assert _states_are_equal(dense, dense_network())
    assert not dense.training


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pt"
    _prune(dense_network(), checkpoint=path)
    content = path.read_bytes()
    with pytest.raises(ArtifactError, match="another plan, network, data or settings"):
        _prune(dense_network(), plan=dict.fromkeys(UNITS, 0.5), checkpoint=path)
    with pytest.raises(ArtifactError, match="another plan, network, data or settings"):
        _prune(dense_network(), GradualSettings(epochs=4, batch_size=32, seed=1), checkpoint=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"hello world", None])
def test_a_broken_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    _prune(dense_network(), checkpoint=path)
    path.write_bytes(path.read_bytes()[:-500] if content is None else content)
    with pytest.raises(ArtifactError, match="not a whole checkpoint"):
        _prune(dense_network(), checkpoint=path)


def test_a_loss_that_is_not_finite_stops_the_run():
    model = dense_network()
    with torch.no_grad():
        model.get_parameter("linear.bias")[0] = float("nan")
    with pytest.raises(ArtifactError, match="loss of training step 0 is not finite"):
        _prune(model)


@pytest.mark.parametrize("settings", [GradualSettings(epochs=0), GradualSettings(epochs=3, batch_size=1000)])
def test_a_training_without_a_batch_is_refused(settings):
    with pytest.raises(ValueError, match="have no batch"):
        _prune(dense_network(), settings)


def test_batches_cover_the_split_in_every_epoch(monkeypatch):
    drawn = []
    original = DATA.train.batch
    monkeypatch.setattr(DATA.train, "batch", lambda rows, rng: drawn.append(rows) or original(rows, rng))
    _prune(dense_network(), GradualSettings(epochs=2, batch_size=64))
    assert [sorted(np.concatenate(drawn[i : i + 4])) for i in (0, 4)] == [list(range(256))] * 2
    assert not np.array_equal(drawn[0], drawn[4])

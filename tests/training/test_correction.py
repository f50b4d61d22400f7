"""Correction brings the compressed network nearer to the dense one, and never makes it worse."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from calibration.batch_norm import reestimate_batch_norm
from calibration.calibration_set import CalibrationSamples
from pipeline.models.inference import torch_predict
from pipeline.training import correction
from pipeline.training.correction import CorrectionSettings, match_outputs
from pipeline.training.masks import nonzero_masks
from targets.errors import ArtifactError
from tests.training.networks import ADAPTER, BLOCKS, DATA, UNITS, dense_network, pruned_network, with_dropout

SAMPLES = CalibrationSamples(DATA.train, np.arange(128))
INPUTS = SAMPLES[:]
SETTINGS = CorrectionSettings(passes=8, batch_size=32)


def _distance(model) -> float:
    """Mean calibration loss on data that correction never saw."""
    unseen = DATA.test.inputs(np.arange(len(DATA.test)))
    ours, dense = (torch.from_numpy(torch_predict(network)(unseen)) for network in (model, dense_network()))
    return float(ADAPTER.calibration_loss(ours, dense).mean())


def _correct(model, masks, settings=SETTINGS, **more):
    return match_outputs(model, dense_network(), SAMPLES, BLOCKS, masks, ADAPTER.calibration_loss, settings, **more)


def test_correction_lowers_the_loss_on_unseen_data_and_keeps_the_masks():
    model, masks = pruned_network(0.8)
    reestimate_batch_norm(model, [torch.from_numpy(INPUTS)])
    before = _distance(model)
    record = _correct(model, masks)
    assert record.kept
    assert record.loss_after < record.loss_before
    assert _distance(model) < 0.7 * before
    found = nonzero_masks(model, UNITS)
    assert all(torch.equal(found[unit], masks[unit]) for unit in UNITS)
    assert not model.training


def test_the_record_says_what_was_done():
    seen = []
    record = _correct(*pruned_network(0.8), progress=lambda pass_record, settings: seen.append(pass_record))
    assert (record.samples, record.held_out_samples) == (120, 8)
    assert [entry.number for entry in record.history] == list(range(8))
    assert tuple(seen) == record.history
    assert record.history[-1].block_error < record.history[0].block_error
    assert record.seconds > 0


def test_learning_ends_with_its_time_and_still_helps(monkeypatch):
    """A clock that goes a second at every look: 32 steps of four a pass, whose rate falls to zero."""
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr("pipeline.training.correction.time", clock)  # nobody else's clock
    record = _correct(*pruned_network(0.8), CorrectionSettings(passes=10**6, budget_s=32.0, batch_size=32))
    assert len(record.history) == 8
    assert record.kept


def test_what_makes_it_worse_is_taken_back():
    model, masks = pruned_network(0.5)
    expected = {name: parameter.clone() for name, parameter in model.named_parameters()}
    record = _correct(model, masks, CorrectionSettings(passes=2, batch_size=32, lr=3.0))
    assert not record.kept
    assert not record.loss_after < record.loss_before
    assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())


def test_learning_that_diverges_is_taken_back_and_leaves_no_checkpoint(monkeypatch, tmp_path):
    monkeypatch.setattr(correction, "CHECKPOINT_S", 0.0)
    model, masks = pruned_network(0.5)
    expected = {name: parameter.clone() for name, parameter in model.named_parameters()}
    learning = CorrectionSettings(passes=2, batch_size=32, lr=1e30)
    record = _correct(model, masks, learning, checkpoint=tmp_path / "c.pt")
    assert (record.kept, record.loss_after, record.history) == (False, None, ())
    assert all(torch.equal(parameter, expected[name]) for name, parameter in model.named_parameters())
    assert all(bool(torch.isfinite(buffer).all()) for buffer in model.buffers())
    assert not (tmp_path / "c.pt").exists()


def test_the_dense_network_is_left_as_it_is():
    dense = dense_network()
    state = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    model, masks = pruned_network(0.8)
    match_outputs(model, dense, SAMPLES, BLOCKS, masks, ADAPTER.calibration_loss, SETTINGS)
    assert all(torch.equal(tensor, state[name]) for name, tensor in dense.state_dict().items())
    assert not dense.get_submodule("layer1.0")._forward_hooks
    assert not model.get_submodule("layer1.0")._forward_hooks
    assert model.get_parameter("layer1.0.conv1.weight").is_contiguous()


def test_the_same_seed_gives_the_same_network():
    models = [pruned_network(0.8) for _ in range(2)]
    for model, masks in models:
        _correct(model, masks)
    first, second = (model.state_dict() for model, _ in models)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


class KilledError(Exception):
    """Something from outside ends it."""


def dropping_network():
    model, masks = pruned_network(0.8)
    return with_dropout(model), masks


@pytest.mark.parametrize("damage", [False, True])
def test_an_interrupted_correction_goes_on_and_ends_in_the_same_network(monkeypatch, tmp_path, damage):
    monkeypatch.setattr(correction, "CHECKPOINT_S", 0.0)
    path, seen = tmp_path / "checkpoint.pt", []

    def kill(record, _):
        if record.number == 4:
            raise KilledError

    with pytest.raises(KilledError):
        _correct(*dropping_network(), progress=kill, checkpoint=path)
    if damage:
        path.write_bytes(path.read_bytes()[:1000])
    model, masks = dropping_network()
    record = _correct(model, masks, progress=lambda entry, _: seen.append(entry.number), checkpoint=path)
    assert seen == list(range(0 if damage else 5, 8))
    assert [entry.number for entry in record.history] == list(range(8))
    whole, masks = dropping_network()
    _correct(whole, masks)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_held_out_samples_only_judge(monkeypatch):
    seen = []
    read = CalibrationSamples.__getitem__

    def spy(samples, rows):
        seen.append(np.arange(len(samples))[rows])
        return read(samples, rows)

    monkeypatch.setattr(CalibrationSamples, "__getitem__", spy)
    record = _correct(*pruned_network(0.8))
    counts = np.bincount(np.concatenate(seen), minlength=128)
    assert int((counts == 3).sum()) == record.held_out_samples  # by the dense network, and before and after
    assert min(counts[counts != 3]) == max(counts) > SETTINGS.passes


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 4 calibration samples, not 3"):
        match_outputs(
            dense_network(),
            dense_network(),
            CalibrationSamples(DATA.train, np.arange(3)),
            BLOCKS,
            {},
            ADAPTER.calibration_loss,
            SETTINGS,
        )


def test_a_network_that_gives_nan_is_an_artifact_error():
    model, masks = pruned_network(0.8)
    with torch.no_grad():
        model.get_parameter("linear.bias")[0] = float("nan")
    with pytest.raises(ArtifactError, match="not finite"):
        _correct(model, masks)

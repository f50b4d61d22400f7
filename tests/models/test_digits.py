"""The embedded network is good, made once, and made again when its cache is broken or something else went in."""

import numpy as np
import pytest
import torch

from calibration.datasets import load_splits
from pipeline.models import digits
from pipeline.models.checkpoints import read_weights
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from targets.errors import ConfigError
from tests.models.splits import stripes


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_the_embedded_network_recognises_digits(home):
    data, adapter = load_splits(None), get_adapter("resnet:digits")
    score = adapter.evaluate(torch_predict(adapter.load(None, data)), data)
    assert score.value >= 0.97


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(digits, "EPOCHS", 1)
    monkeypatch.setattr(digits, "INPUT_SHAPE", (1, 4, 4))
    return get_adapter("resnet:digits"), stripes(64, classes=2, size=4)


def test_a_trained_network_is_cached_and_same_seed_same_network(home, quick):
    adapter, data = quick
    first = adapter.load(None, data)
    (path,) = (home / "models").iterdir()
    written = path.stat().st_mtime_ns
    again = adapter.load(None, data)
    assert path.stat().st_mtime_ns == written
    path.unlink()
    anew = adapter.load(None, data)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
        assert torch.allclose(tensor.float(), anew.state_dict()[name].float(), atol=1e-3)
    assert not first.training
    assert not again.training


def test_other_data_gives_another_network(home, quick):
    adapter, data = quick
    adapter.load(None, data)
    adapter.load(None, stripes(64, classes=2, size=4, seed=1))
    assert len(list((home / "models").iterdir())) == 2


def test_a_broken_cache_is_made_again(home, quick):
    adapter, data = quick
    adapter.load(None, data)
    (path,) = (home / "models").iterdir()
    path.write_bytes(path.read_bytes()[:100])
    adapter.load(None, data)
    assert "linear.weight" in read_weights(path)


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path, monkeypatch, quick):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path / "file"))
    adapter, data = quick
    assert np.isfinite(torch_predict(adapter.load(None, data))(data.test.inputs(np.arange(4)))).all()


def test_the_embedded_network_is_not_trained_on_other_data(home):
    with pytest.raises(ConfigError, match="leave --data out"):
        get_adapter("resnet:digits").load(None, stripes(16, channels=3))

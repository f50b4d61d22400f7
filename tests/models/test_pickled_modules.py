"""Tensors come out of pickled modules; what else a pickle asks for does not happen."""

import contextlib
import os
import pickle
import subprocess
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.models.pickled_modules import holds_objects, read_module
from targets.errors import ArtifactError

SPDY_DATA = os.environ.get("SPDY_DATA")


@pytest.fixture
def module():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    return nn.Sequential(OrderedDict(backbone=inner, head=nn.Linear(4, 2, bias=False)))


class _Calls:
    """Pickles as a call of ``function`` that leaves ``marker`` behind."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


HOSTILE = {
    "exec": lambda marker: _Calls(exec, f"open({str(marker)!r}, 'w')"),
    "eval": lambda marker: _Calls(eval, f"open({str(marker)!r}, 'w')"),
    "open": lambda marker: _Calls(open, str(marker), "w"),
    "shell": lambda marker: _Calls(os.system, f"touch {marker}"),
    "process": lambda marker: _Calls(subprocess.check_call, ["touch", str(marker)]),
    "method": lambda marker: _Calls(getattr, Path(marker), "touch"),
    "nested": lambda marker: _Calls(map, _Calls(exec, f"open({str(marker)!r}, 'w')"), [1]),
}


@pytest.mark.parametrize("wrapped", [lambda m: m, lambda m: {"epoch": 3, "model": m, "ema": None}])
def test_a_pickled_module_gives_its_state_dict(tmp_path, module, wrapped):
    path = tmp_path / "module.pt"
    torch.save(wrapped(module.half()), path)
    weights = read_module(path)
    assert list(weights) == list(module.state_dict())
    assert all(torch.equal(tensor, weights[name]) for name, tensor in module.state_dict().items())


def test_the_moving_average_is_preferred(tmp_path, module):
    averaged = nn.Linear(2, 2)
    torch.save({"model": module, "ema": averaged}, tmp_path / "training.pt")
    assert torch.equal(read_module(tmp_path / "training.pt")["weight"], averaged.weight)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("place", ["beside", "within", "instead"])
def test_code_in_a_pickle_is_never_run(tmp_path, module, hostile, place):
    marker, path = tmp_path / "ran", tmp_path / "hostile.pt"
    if place == "within":
        module.backbone.names = hostile(marker)
    content = {"beside": {"date": hostile(marker), "model": module}, "within": module, "instead": hostile(marker)}
    torch.save(content[place], path)
    with contextlib.suppress(ArtifactError):  # either it is refused, or nothing comes of it
        assert read_module(path).keys() == module.state_dict().keys()
    assert not marker.exists()


def test_the_attack_would_work_on_a_careless_reader(tmp_path, module):
    marker, path = tmp_path / "ran", tmp_path / "hostile.pt"
    torch.save({"date": HOSTILE["open"](marker), "model": module}, path)
    torch.load(path, weights_only=False)
    assert marker.exists()


def test_a_module_within_itself_is_refused(tmp_path, module):
    module.backbone._modules["again"] = module
    torch.save(module, tmp_path / "loop.pt")
    with pytest.raises(ArtifactError, match="within themselves"):
        read_module(tmp_path / "loop.pt")


@pytest.mark.parametrize("content", [{"model": None}, {"model": nn.ReLU()}, nn.ReLU(), {}])
def test_a_file_without_a_network_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "none.pt")
    with pytest.raises(ArtifactError, match=r"holds no network: give the \.pt file of a trained one"):
        read_module(tmp_path / "none.pt")


@pytest.mark.parametrize("damage", ["empty", "garbage", "truncated", "plain pickle"])
def test_a_damaged_file_is_refused(tmp_path, module, damage):
    path = tmp_path / "damaged.pt"
    torch.save(module, path)
    whole = path.read_bytes()
    plain = pickle.dumps(_Calls(exec, "raise SystemExit('ran')"))
    contents = {"empty": b"", "garbage": b"hello " * 99, "truncated": whole[:-900], "plain pickle": plain}
    path.write_bytes(contents[damage])
    with pytest.raises(ArtifactError, match="is damaged, or does more"):
        read_module(path)
    assert not holds_objects(path)


def test_only_files_that_name_objects_hold_them(tmp_path, module):
    torch.save(module, tmp_path / "module.pt")
    torch.save(module.state_dict(), tmp_path / "tensors.pt")
    assert holds_objects(tmp_path / "module.pt")
    assert not holds_objects(tmp_path / "tensors.pt")
    assert not holds_objects(tmp_path / "absent.pt")


@pytest.mark.skipif(SPDY_DATA is None, reason="SPDY_DATA is not set")
def test_the_official_checkpoint_gives_its_published_tensors():
    from safetensors.torch import load_file

    folder = Path(SPDY_DATA) / "yolov5"
    published, weights = load_file(folder / "yolov5n.safetensors"), read_module(folder / "yolov5n.pt")
    assert weights.keys() == published.keys()
    assert all(torch.equal(tensor, published[name]) for name, tensor in weights.items())

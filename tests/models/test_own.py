"""Adapters of the user's own are found, and told what they lack."""

import sys

import pytest

from pipeline.models.own import is_own
from pipeline.models.registry import get_adapter
from targets.errors import ConfigError

COMPLETE = """
from pipeline.models.base import ModelAdapter
from pipeline.models.classifiers import ResNetAdapter
from pipeline.models.resnet import VARIANTS


def complete():
    adapter = ResNetAdapter(VARIANTS["resnet:digits"])
    adapter.name = "mine"
    return adapter


class Partial(ResNetAdapter):
    evaluate = None
    deployed = "no method"
    metric = None


def partial():
    return Partial(VARIANTS["resnet:digits"])


class Bare(ModelAdapter):
    def calibration_loss(self, outputs, dense):
        return outputs


def bare():
    return Bare()


def broken():
    raise KeyError("weights")


number = 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "net.py").write_text(COMPLETE)
    (tmp_path / "my_net.py").write_text("import no_such_thing\n")
    yield "my_package.net"
    for name in ("my_package.net", "my_package", "my_net"):
        sys.modules.pop(name, None)


def test_a_factory_gives_the_adapter(module):
    assert get_adapter(f"{module}:complete").name == "mine"


def test_what_an_adapter_lacks_is_named_with_what_it_must_return(module):
    with pytest.raises(ConfigError) as caught:
        get_adapter(f"{module}:partial")
    lacking = str(caught.value).splitlines()[1:-1]
    assert [line.split("(")[0].split(":")[0].strip() for line in lacking] == ["metric", "deployed", "evaluate"]
    assert lacking[1].startswith("  deployed(model) → Module: What is exported")
    assert "evaluate(predict, data) → Score" in lacking[2]
    assert "docs/your-model.md" in str(caught.value)
    assert caught.value.exit_code == 2


def test_what_an_adapter_inherits_from_the_protocol_is_missing(module):
    with pytest.raises(ConfigError) as caught:
        get_adapter(f"{module}:bare")
    said = str(caught.value)
    assert "load_data(" in said
    assert "training_loss(" in said
    assert "calibration_loss(" not in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_package.net:absent", "has no function absent, only"),
        ("my_package.net:number", "has no function number, only"),
        ("my_package.net:broken", r"broken\(\) failed: KeyError: 'weights'"),
        ("my_package.absent:make", "cannot be imported"),
        ("my_net:make", "No module named 'no_such_thing'"),
        ("nowhere:make", "module that is installed or lies in the working directory"),
    ],
)
def test_factories_that_do_not_work_are_explained(module, name, said):
    with pytest.raises(ConfigError, match=said):
        get_adapter(name)


def test_only_places_of_functions_look_like_one():
    assert is_own("package.module:factory")
    assert is_own("module:factory")
    assert not any(map(is_own, ("resnet20", "resnet:20", "a-b:c", "a..b:c", "a.b:", ":c")))

"""Which runtimes a run may choose from, on a machine where nobody has installed anything for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

import pipeline.setup
from pipeline.config import RunConfig
from pipeline.console import Reporter
from pipeline.setup import choose_candidates
from targets.errors import RuntimeMissingError
from targets.registry import RuntimeInfo, installed_runtimes
from targets.target import load_target

Install = Callable[[str, Reporter], Path]


def without_deepsparse() -> list[RuntimeInfo]:
    return [info for info in installed_runtimes() if info.name != "deepsparse"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runtimes that were installed, which none is in truth."""
    asked: list[str] = []
    monkeypatch.setattr(pipeline.setup, "installed_runtimes", without_deepsparse)
    monkeypatch.setattr(pipeline.setup, "install_runtime", lambda name, _: asked.append(name))
    return asked


def candidates(**settings: object) -> set[str]:
    config = RunConfig.model_validate({"speedup": 3, **settings})
    return {info.name for info in choose_candidates(load_target("intel"), config, Reporter(quiet=True))}


def test_deepsparse_is_installed_where_nothing_gains_from_zeros(asked: list[str]) -> None:
    assert candidates() == {"onnxruntime", "openvino"}
    assert asked == ["deepsparse"]


@pytest.mark.parametrize("settings", [{"install": False}, {"families": "channel"}])
def test_it_is_not_where_nobody_wants_it(asked: list[str], settings: dict[str, object]) -> None:
    assert candidates(**settings) == {"onnxruntime", "openvino"}
    assert asked == []


def test_a_run_goes_on_without_it(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(name: str, _: Reporter) -> Path:
        raise RuntimeMissingError(f"{name} cannot be fetched")

    monkeypatch.setattr(pipeline.setup, "install_runtime", no_network)
    config = RunConfig(speedup=3)
    found = choose_candidates(load_target("intel"), config, Reporter())
    assert {info.name for info in found} == {"onnxruntime", "openvino"}
    assert "going on without DeepSparse: deepsparse cannot be fetched" in " ".join(capsys.readouterr().err.split())


def test_without_any_runtime_it_ends_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.setup, "installed_runtimes", list)
    with pytest.raises(RuntimeMissingError, match="pip install onnxruntime openvino"):
        candidates(install=False)

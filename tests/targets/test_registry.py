import sys
from pathlib import Path

import pytest

from targets import environments
from targets.errors import ConfigError, RuntimeMissingError
from targets.host import isa_features
from targets.registry import RUNTIMES, describe_runtime, get_runtime, installed_runtimes


@pytest.fixture
def nothing_managed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPDY_EDGE_HOME", str(tmp_path))
    monkeypatch.delenv("SPDY_EDGE_DEEPSPARSE_PYTHON", raising=False)


@pytest.mark.usefixtures("nothing_managed")
def test_runtimes_beside_this_package_run_under_its_interpreter() -> None:
    found = {info.name: info for info in installed_runtimes()}
    assert set(found) == {"openvino", "onnxruntime"}
    for info in found.values():
        assert info.interpreter == Path(sys.executable)
        assert info.version == RUNTIMES[info.name].versions()[info.name]
        assert info.families == ("channel", "int8")
        assert info.precisions[0] == "fp32"


@pytest.mark.usefixtures("nothing_managed")
def test_a_missing_runtime_says_how_to_install_it() -> None:
    with pytest.raises(RuntimeMissingError, match="pipeline runtimes install deepsparse") as caught:
        get_runtime("deepsparse")
    assert caught.value.exit_code == 7
    assert "openvino" in str(caught.value)


@pytest.mark.usefixtures("nothing_managed")
def test_a_missing_runtime_is_still_described() -> None:
    info = describe_runtime("deepsparse")
    assert (info.interpreter, info.version, info.families) == (None, None, ("unstructured",))
    assert "no production use" in info.licence_note


def test_an_unknown_runtime_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'openvino'"):
        get_runtime("openvno")


def test_bf16_is_offered_only_where_the_cpu_computes_it() -> None:
    native = bool({"avx512_bf16", "amx_bf16"} & set(isa_features()))
    assert ("bf16" in describe_runtime("openvino").precisions) == native
    assert "bf16" not in describe_runtime("onnxruntime").precisions


@pytest.mark.parametrize("interpreter", ["/no/such/python", sys.executable, "/etc/passwd"])
def test_a_variable_that_names_no_deepsparse_is_refused(interpreter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPDY_EDGE_DEEPSPARSE_PYTHON", interpreter)
    with pytest.raises(ConfigError, match="SPDY_EDGE_DEEPSPARSE_PYTHON"):
        get_runtime("deepsparse")


@pytest.mark.deepsparse
@pytest.mark.skipif(environments.installed("deepsparse") is None, reason="DeepSparse is not installed")
def test_an_installed_deepsparse_is_found() -> None:
    info = get_runtime("deepsparse")
    assert info.version == "1.8.0"
    assert info.interpreter == environments.installed("deepsparse")
    assert installed_runtimes()[0] == info

"""DeepSparse's library in this process, and in its own where this one cannot load it."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.lib.stride_tricks import as_strided

from pipeline import load_bundle
from pipeline.serving.deepsparse_library import DeepSparseEngine, Strides
from pipeline.serving.engine import open_engine
from targets import environments
from targets.environments import MANAGED
from targets.errors import RuntimeMissingError
from targets.registry import RuntimeInfo, get_runtime
from tests.serving.bundles import RECORD
from tests.targets.test_runtimes import make_weights, reference

needs_deepsparse = pytest.mark.skipif(
    environments.installed("deepsparse") is None, reason="DeepSparse is not installed"
)
X = np.random.default_rng(3).standard_normal((8, 3, 16, 16)).astype(np.float32)


def servers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "server.pyz" in " ".join(p.cmdline())]


def managed(version: str, interpreter: Path) -> RuntimeInfo:
    return RuntimeInfo("deepsparse", ("unstructured",), interpreter, version, "", ("fp32",))


@pytest.mark.parametrize("own_process", [False, True], ids=["here", "there"])
@pytest.mark.deepsparse
@needs_deepsparse
def test_it_runs_here_unless_a_process_of_its_own_is_asked_for(bundle: Path, own_process: bool) -> None:
    allowed = os.sched_getaffinity(0)
    with load_bundle(bundle, runtime="deepsparse", own_process=own_process) as model:
        assert bool(servers()) == own_process
        np.testing.assert_allclose(model(X), reference(make_weights(), X), atol=1e-4)
    assert os.sched_getaffinity(0) == allowed
    assert not servers()


@pytest.mark.deepsparse
@needs_deepsparse
def test_a_network_that_it_cannot_run_is_told_in_its_own_words(bundle: Path, tmp_path: Path) -> None:
    info = get_runtime("deepsparse")
    (tmp_path / "model.onnx").write_bytes(b"no network")
    with pytest.raises(RuntimeMissingError, match=r"deepsparse cannot run .*model\.onnx: .*could not be parsed"):
        open_engine(tmp_path, RECORD, info, 1)
    with pytest.raises(RuntimeMissingError, match=r"(?s)deepsparse cannot run .*Got: 8 Expected: 4"):
        open_engine(bundle, replace(RECORD, batch_size=4), info, 1)


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ("9.9.9", "exit 1"),  # not even asked: another library may have another interface
        (MANAGED["deepsparse"].version, 'echo \'["cpython-38", "/nowhere"]\''),
        (MANAGED["deepsparse"].version, "exit 1"),
        (MANAGED["deepsparse"].version, f'echo \'["{sys.implementation.cache_tag}", "/nowhere"]\''),
    ],
    ids=["version", "python", "broken", "gone"],
)
def test_what_this_process_cannot_load_is_left_to_another(tmp_path: Path, version: str, answer: str) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{answer}\n")
    interpreter.chmod(0o755)
    assert DeepSparseEngine.open(managed(version, interpreter), tmp_path / "model.onnx", RECORD, 1) is None


def test_outputs_get_their_strides_back_and_keep_their_memory() -> None:
    """As the library hands them over under numpy 2, and as it does under numpy 1."""
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    strides = Strides(values.shape, values.itemsize)
    for given in (as_strided(values, strides=(0, 0, 0)), values):
        np.testing.assert_array_equal(strides(given), values)
        assert strides.are_of(given)
        assert not strides.are_of(np.empty((2, 4, 3), np.float32))
    lost = strides(as_strided(values.copy(), strides=(0, 0, 0)))
    assert lost.flags.c_contiguous
    np.testing.assert_array_equal(lost, values)

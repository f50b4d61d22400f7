"""DeepSparse: the runtime whose kernels are faster on unstructured zeros."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .onnx_graph import read_input_types

NAME = "deepsparse"
FAMILIES: tuple[str, ...] = ("unstructured",)
ISA_LIMITS = {"avx2": {"NM_ARCH": "avx2"}}  # another library is loaded; avx512's uses VNNI where it is there


def versions() -> dict[str, str]:
    """Package → version of everything that computes."""
    return {package: metadata.version(package) for package in ("deepsparse", "numpy", "onnx")}


def compile(
    model_path: str,
    threads: int,
    batch_size: int,
    precision: str = "fp32",
    profile: bool = False,  # noqa: ARG001 - there is nothing honest to count
) -> CompiledModel:
    """Compile an ONNX file; the batch size overrides the file's."""
    if precision != "fp32":
        raise ValueError(f"deepsparse computes fp32 models in fp32, not in {precision}")
    os.environ["NM_LOGGING_LEVEL"] = "error"
    return CompiledModel(_engine(model_path, batch_size, threads), model_path)


def _engine(model_path: str, batch_size: int, threads: int) -> Any:
    """What deepsparse.Engine wraps, with its defaults."""
    streams, schedule = 0, "single_stream"  # 0: as many as the schedule has
    return _library()[0].deepsparse_engine(model_path, batch_size, threads, streams, schedule, None, None)


@lru_cache
def _library() -> tuple[Any, str]:
    """The package's compiled library and the instruction set that it is for.

    The package itself is left out: it imports pipelines, a model zoo's client, analytics and setuptools, which takes
    four times as long as everything else that a worker does before it measures.
    """
    with suppress(ImportError):  # setuptools stands in for the distutils that Python still has
        import_module("_distutils_hack").remove_shim()
    spec = util.find_spec("deepsparse")
    if spec is None:
        raise ImportError("deepsparse is not installed")
    others = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "deepsparse"}
    sys.modules["deepsparse"] = util.module_from_spec(spec)
    try:
        from deepsparse.lib import AVX_TYPE, init_deepsparse_lib

        return init_deepsparse_lib(), AVX_TYPE
    finally:  # whoever imports the package after this gets the whole of it
        for name in [name for name in sys.modules if name.split(".")[0] == "deepsparse"]:
            del sys.modules[name]
        sys.modules.update(others)


def kernel_support(model_path: str, threads: int, batch_size: int) -> tuple[float, list[str]]:
    """Fraction of the operations that fast kernels compute, and the others, each with its node and why.

    The engine names kinds of operations that it has for other settings; those that it never has it passes over.
    This must be the first thing that a process does with DeepSparse, which reads only once how much to log.
    """
    os.environ["NM_LOGGING_LEVEL"] = "diagnose"
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        standard_error = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            engine = _engine(model_path, batch_size, threads)
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        log.seek(0)
        found = (re.search(r"\] Unsupported (.+)", line) for line in log)
        return round(engine.fraction_of_supported_ops(), 4), [match[1].strip() for match in found if match]


class CompiledModel:
    """A DeepSparse engine.

    It has no layer times: at its normal optimisation level it computes several layers as one, and its counters
    exist only without those optimisations, where they mislead.
    """

    def __init__(self, engine: Any, model_path: str) -> None:
        self._engine = engine
        self._model_path = model_path

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine = None

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one batch of C-contiguous inputs; the engine itself checks their shapes."""
        outputs: list[NDArray[Any]] = self._engine.execute_list_out(list(inputs))
        return outputs

    def input_specs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape with the batch and numpy type name of every input."""
        types = read_input_types(Path(self._model_path).read_bytes())
        named = zip(self._engine.input_names(), self._engine.input_dims())  # noqa: B905 - Python 3.8
        return [(name, tuple(shape), types[name]) for name, shape in named]

    def layer_times(self) -> None:
        """None: see the class."""

    def operation_times(self) -> None:
        """None: see the class."""

    def kernels(self) -> list[str]:
        """The instruction set of the library that was loaded."""
        return [_library()[1]]

    def supported_fraction(self) -> float:
        """Fraction of the operations that do not fall back to slow ones; 0.0 means that sparsity buys nothing."""
        return float(round(self._engine.fraction_of_supported_ops(), 4))

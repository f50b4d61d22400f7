"""DeepSparse: the runtime whose kernels are faster on unstructured zeros."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from numpy.typing import NDArray

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
    os.environ["NM_DISABLE_ANALYTICS"] = "1"
    os.environ["NM_LOGGING_LEVEL"] = "error"
    from deepsparse import Engine

    logging.getLogger("deepsparse").setLevel(logging.ERROR)
    return CompiledModel(Engine(model_path, batch_size=batch_size, num_cores=threads))


def kernel_support(model_path: str, threads: int, batch_size: int) -> tuple[float, list[str]]:
    """Fraction of the operations that fast kernels compute, and the others, each with its node and why.

    The engine names kinds of operations that it has for other settings; those that it never has it passes over.
    This must be the first thing that a process does with DeepSparse, which reads only once how much to log.
    """
    os.environ["NM_DISABLE_ANALYTICS"] = "1"
    os.environ["NM_LOGGING_LEVEL"] = "diagnose"
    from deepsparse import Engine

    with tempfile.TemporaryFile("w+", errors="replace") as log:
        standard_error = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            engine = Engine(model_path, batch_size=batch_size, num_cores=threads)
        finally:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        log.seek(0)
        found = (re.search(r"\] Unsupported (.+)", line) for line in log)
        return float(engine.fraction_of_supported_ops), [match[1].strip() for match in found if match]


class CompiledModel:
    """A DeepSparse engine.

    It has no layer times: at its normal optimisation level it computes several layers as one, and its counters
    exist only without those optimisations, where they mislead.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __enter__(self) -> CompiledModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine = None

    def run(self, inputs: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Outputs for one batch of C-contiguous inputs; the engine itself checks their shapes."""
        outputs: list[NDArray[Any]] = self._engine.run(inputs, val_inp=False)
        return outputs

    def input_specs(self) -> list[tuple[str, tuple[int, ...], str]]:
        """Name, shape with the batch and numpy type name of every input."""
        samples = self._engine.generate_random_inputs()
        named = zip(self._engine.input_names, samples)  # noqa: B905 - Python 3.8
        return [(name, array.shape, array.dtype.name) for name, array in named]

    def layer_times(self) -> None:
        """None: see the class."""

    def operation_times(self) -> None:
        """None: see the class."""

    def kernels(self) -> list[str]:
        """The instruction set of the library that was loaded."""
        from deepsparse.lib import AVX_TYPE

        return [AVX_TYPE]

    def supported_fraction(self) -> float:
        """Fraction of the operations that do not fall back to slow ones; 0.0 means that sparsity buys nothing."""
        return float(self._engine.fraction_of_supported_ops)

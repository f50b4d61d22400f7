"""DeepSparse in this process: the compiled library of its environment, without the package around it.

The package needs an environment of its own (decision 0004), and a call to a process there takes some tens of
microseconds. The library alone needs no other package than numpy. It was compiled for numpy 1, and where numpy 2 moved
the size of an array's element it reads 0: its outputs lie in memory as they should, with strides of zero. That, and
nothing else of numpy, is put right here (decision 0020).
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.record import ServingRecord
from targets.environments import MANAGED
from targets.host import pinned_cpus
from targets.registry import RuntimeInfo

NAME = "deepsparse"
WHERE = """
import importlib.util, json, sys
found = importlib.util.find_spec("deepsparse")
print(json.dumps([sys.implementation.cache_tag, found.submodule_search_locations[0]]))
"""
"""Asks an interpreter for what compiled modules depend on, and for the package's folder; imports nothing of it."""


class DeepSparseEngine:
    """A network in the library.

    Args:
        network: the library's own object.
    """

    def __init__(self, network: Any) -> None:
        self._network = network

    @classmethod
    def open(cls, info: RuntimeInfo, model: Path, record: ServingRecord, threads: int) -> Self | None:
        """The network in this process, None where only a process of its own can run it.

        Raises:
            Exception: whatever the library says of a network that it cannot run.
        """
        library = _load(info)
        if library is None:
            return None
        with _pinned(threads):
            network = library.deepsparse_engine(str(model), record.batch_size, threads, 1, "single_stream", None)
        samples = [np.zeros(spec.shape, spec.dtype) for spec in record.inputs]
        output = network.execute_list_out(samples)[0]
        return cls(network) if _is_understood(output) else None

    def run(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The first output for one whole batch."""
        return _whole(self._network.execute_list_out(list(batch))[0])

    def close(self) -> None:
        """Give the library's memory back."""
        self._network = None


class _Memory:
    """Memory of an array whose strides are to be forgotten; keeps the array alive."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, array: NDArray[Any]) -> None:
        interface = array.__array_interface__
        interface["strides"] = None  # rows one after the other
        self.__array_interface__, self._owner = interface, array


def _whole(output: NDArray[Any]) -> NDArray[Any]:
    """The library's output with the strides that it meant."""
    return np.asarray(_Memory(output))


def _is_understood(output: Any) -> bool:
    """Whether an output is as `_whole` takes it: memory of the library, in order, with right strides or none."""
    if not isinstance(output, np.ndarray) or output.base is None or isinstance(output.base, np.ndarray):
        return False
    return output.flags.c_contiguous or not any(output.strides)


def _load(info: RuntimeInfo) -> ModuleType | None:
    """The library, None where this process cannot load it: another Python, another version, nothing found."""
    if info.name != NAME or info.version != MANAGED[NAME].version:
        return None
    try:
        answer = subprocess.run([str(info.interpreter), "-I", "-c", WHERE], capture_output=True, check=True)
        tag, folder = json.loads(answer.stdout)
        if tag != sys.implementation.cache_tag:
            return None
        kind = json.loads(subprocess.run([Path(folder, "arch.bin")], capture_output=True, check=True).stdout)["isa"]
        os.environ.setdefault("NM_LOGGING_LEVEL", "error")  # read once, when the library is loaded
        path = Path(folder, kind, "deepsparse_engine.so")
        spec = importlib.util.spec_from_file_location(f"deepsparse.{kind}.deepsparse_engine", path)
        assert spec is not None
        assert spec.loader is not None
        library = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(library)
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError, ImportError):
        return None
    return library


@contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """Threads that are started meanwhile keep to cores of their own, as they did when the bundle was certified."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, pinned_cpus(threads))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

"""DeepSparse in this process: the compiled library of its environment, without the package around it.

The package needs an environment of its own (decision 0004), and a call to a process there takes some tens of
microseconds. The library alone needs no other package than numpy. It was compiled for numpy 1, and where numpy 2 moved
the size of an array's element it reads 0: its outputs lie in memory as they should, with strides of zero. That, and
nothing else of numpy, is put right here (decision 0020).
"""

import ctypes
import importlib.util
import json
import math
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
STRIDES_AT = object.__basicsize__ + 3 * 8
"""Bytes of an array object before the pointer to its strides: what any object has, then pointer to the data, number of
dimensions, pointer to their sizes. Compiled modules depend on this order, so that numpy keeps it."""
_address_at = ctypes.c_void_p.from_address


class DeepSparseEngine:
    """A network in the library.

    Args:
        network: the library's own object.
        output: one that it gave; all have its shape.
    """

    def __init__(self, network: Any, output: NDArray[Any]) -> None:
        self._network, self._make_whole = network, Strides(output.shape, output.itemsize)

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
        return cls(network, output) if _is_understood(output) else None

    def run(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The first output for one whole batch."""
        return self._make_whole(self._network.execute_list_out(list(batch))[0])

    def close(self) -> None:
        """Give the library's memory back."""
        self._network = None


class Strides:
    """Gives arrays of one shape the strides of rows that lie one after the other.

    It is as short as it can be: what a call does after the network costs five times its time, while the library's
    threads still wait for work on every core.
    """

    def __init__(self, shape: Sequence[int], itemsize: int) -> None:
        self._values: list[ctypes.c_ssize_t | int] = [
            itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape))
        ]
        self._at = (ctypes.c_ssize_t * len(shape)).from_address

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array with these strides, and flags that say so."""
        self._at(_address_at(id(array) + STRIDES_AT).value)[:] = self._values  # type: ignore[arg-type]
        return array.view()

    def are_of(self, array: NDArray[Any]) -> bool:
        """Whether an array has these strides, read where they are written."""
        return list(self._at(_address_at(id(array) + STRIDES_AT).value)) == self._values == list(array.strides)  # type: ignore[arg-type]


def _is_understood(output: Any) -> bool:
    """Whether `Strides` can put it right: memory of the library, in order, with right strides or none."""
    if not isinstance(output, np.ndarray) or output.base is None or isinstance(output.base, np.ndarray):
        return False
    array = np.empty((2, 3, 5))
    if not output.ndim or not Strides(array.shape, array.itemsize).are_of(array):
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

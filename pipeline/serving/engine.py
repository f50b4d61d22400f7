"""What runs a bundle's network: in this process where it can be, else in one of its own."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.serving.deepsparse_library import DeepSparseEngine
from pipeline.serving.record import ServingRecord
from pipeline.serving.remote import RemoteEngine
from targets.errors import ConfigError, RuntimeMissingError
from targets.host import available_cores
from targets.registry import RUNTIMES, RuntimeInfo, describe_runtime, get_runtime
from targets.runtimes.base import CompiledModel

FALLBACKS = ("openvino", "onnxruntime")
"""What takes the place of a runtime that is not installed, the usually faster one first."""
MODEL_FILES = {"openvino": "openvino/model.xml"}


class Engine(Protocol):
    """A network that takes one whole batch at a time, from one thread at a time."""

    def run(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The first output for one batch of C-contiguous inputs in the model's order, an array of its own."""

    def close(self) -> None:
        """Give memory, threads and processes back."""


class LocalEngine:
    """An engine in this process."""

    def __init__(self, compiled: CompiledModel) -> None:
        self._compiled = compiled

    def run(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Outputs of one whole batch."""
        return self._compiled.run(batch)[0]

    def close(self) -> None:
        """Give the runtime's memory and threads back."""
        self._compiled.__exit__(None, None, None)


def choose_runtime(record: ServingRecord, asked: str | None) -> RuntimeInfo:
    """The runtime that was asked for, else the one that was certified, else one that is there, with a warning.

    Raises:
        ConfigError: the runtime that was asked for does not exist.
        RuntimeMissingError: it is not installed, or none is.
    """
    if asked:
        return get_runtime(asked)
    certified = describe_runtime(record.runtime)
    if certified.interpreter:
        return certified
    for info in map(describe_runtime, FALLBACKS):
        if info.interpreter:
            warnings.warn(
                f"the bundle was certified on {record.runtime}, which is not installed: it runs on {info.name}, where "
                f"the certified speedup does not hold. `pipeline runtimes list` says how to install {record.runtime}.",
                RuntimeWarning,
                stacklevel=4,  # the caller of load_bundle
            )
            return info
    raise RuntimeMissingError(
        f"Neither {record.runtime}, which the bundle was certified on, nor {' or '.join(FALLBACKS)} is installed. "
        "See `pipeline runtimes list`."
    )


def choose_threads(record: ServingRecord, asked: int | None) -> int:
    """The threads that were asked for, else the certified ones, with a warning where there are not as many cores.

    Raises:
        ConfigError: more threads than cores were asked for, or none.
    """
    available = available_cores()
    if asked is not None:
        if not 1 <= asked <= available:
            raise ConfigError(f"{asked} threads were asked for; this process may use 1 to {available} physical cores.")
        return asked
    if record.threads > available:
        warnings.warn(
            f"the bundle was certified with {record.threads} threads, and this process may use {available} physical "
            f"core{'s' * (available > 1)}: it runs with {available}, where the certified speedup does not hold.",
            RuntimeWarning,
            stacklevel=4,
        )
    return min(record.threads, available)


def open_engine(
    bundle: Path, record: ServingRecord, info: RuntimeInfo, threads: int, own_process: bool = False
) -> Engine:
    """Compile a bundle's network for its batch size.

    Args:
        own_process: run it in a process of its own even where this one could.

    Raises:
        RuntimeMissingError: the runtime cannot run it.
    """
    model = bundle / MODEL_FILES.get(info.name, "model.onnx")
    engine = None if own_process else _open_here(model, record, info, threads)
    return engine or RemoteEngine(info, model, record, threads)


def _open_here(model: Path, record: ServingRecord, info: RuntimeInfo, threads: int) -> Engine | None:
    try:
        if info.interpreter != Path(sys.executable):
            return DeepSparseEngine.open(info, model, record, threads)
        return LocalEngine(RUNTIMES[info.name].compile(str(model), threads, record.batch_size, record.precision))
    except Exception as error:  # every runtime has errors of its own
        raise RuntimeMissingError(f"{info.name} cannot run {model}: {error}") from error

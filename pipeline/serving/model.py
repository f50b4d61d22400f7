"""A bundle as a function: arrays in, arrays out, on the runtime that it was certified on."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.bundle import check_bundle
from pipeline.run_folder import read_json
from pipeline.serving.classification import ClassScore, Picture, open_picture, rank
from pipeline.serving.engine import Engine, choose_runtime, choose_threads, open_engine
from pipeline.serving.record import CLASSIFIER, ServingRecord
from targets.errors import ConfigError


class InputError(ConfigError, ValueError):
    """An array or image that the network does not take: says what it is and what is needed."""


class BundleModel:
    """The network of a bundle; a context manager.

    It may be called from any number of threads. Batches are run one after another: the engine already computes with
    every thread that was certified, and a second one would only fight it for the cores.

    Args:
        record: how it is fed and read.
        certificate: what was measured.
        runtime: what it runs on.
    """

    def __init__(self, record: ServingRecord, certificate: dict[str, Any], engine: Engine, runtime: str) -> None:
        self.record, self.certificate, self.runtime = record, certificate, runtime
        self._engine: Engine | None = engine
        self._lock = threading.Lock()
        self._sample, self._dtype = record.input.shape[1:], np.dtype(record.input.dtype)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give memory, threads and processes back, once the batch that is being run is done."""
        with self._lock:
            if self._engine is not None:
                self._engine.close()
            self._engine = None

    def __call__(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Outputs [n, …] of preprocessed inputs [n, …], n of any size: the last batch is padded and cut.

        Raises:
            InputError: another type or shape than the network takes, or no sample at all.
            RuntimeMissingError: the runtime failed.
        """
        self._check(inputs)
        if len(inputs) == self.record.batch_size:
            return self._run(np.ascontiguousarray(inputs))
        outputs = np.concatenate([self._run(batch) for batch in _batches(inputs, self.record.batch_size)])
        return outputs[: len(inputs)]

    def predict(self, picture: Picture) -> list[ClassScore]:
        """Every class of one image with its probability, the most probable one first.

        Args:
            picture: an image file, an opened image, or pixels [height, width(, 3)] as uint8.

        Raises:
            InputError: the network is no image classifier.
            DataError: it is no readable image.
        """
        return self.classify(self(self.preprocess(picture)[None]))[0]

    def preprocess(self, picture: Picture) -> NDArray[np.float32]:
        """One image as the network takes it, [channels, height, width].

        Raises:
            InputError: the network takes no images.
            DataError: it is no readable image.
        """
        if self.record.preprocessing is None:
            raise InputError(f"{self.record.model} takes no images. Give it arrays of {self._wanted()}.")
        return self.record.preprocessing(open_picture(picture))

    def classify(self, outputs: NDArray[Any]) -> list[list[ClassScore]]:
        """Every class of every sample with its probability, the most probable one first.

        Raises:
            InputError: the network is no classifier.
        """
        if self.record.family != CLASSIFIER:
            raise InputError(
                f"{self.record.model} is no classifier but a {self.record.family}: its outputs are arrays."
            )
        return rank(outputs, self.record.classes)

    def _run(self, batch: NDArray[Any]) -> NDArray[Any]:
        with self._lock:
            if self._engine is None:
                raise ValueError("this bundle is closed: load it again")
            return self._engine.run(batch)

    def _check(self, inputs: Any) -> None:
        if not isinstance(inputs, np.ndarray):
            raise InputError(f"inputs are a {type(inputs).__name__}. Give a numpy array of {self._wanted()}.")
        if inputs.shape == self._sample:
            raise InputError(f"inputs have the shape {inputs.shape}, one sample. Put the batch in front: inputs[None].")
        if inputs.shape[1:] != self._sample or not len(inputs):
            raise InputError(f"inputs have the shape {inputs.shape}. Give {self._wanted()}, n at least 1.")
        if inputs.dtype != self._dtype:
            raise InputError(
                f"inputs are {inputs.dtype}. Give {self._wanted()}: preprocessed as for training, then "
                f"inputs.astype(numpy.{self._dtype})."
            )

    def _wanted(self) -> str:
        return f"{self._dtype} [n, {', '.join(map(str, self._sample))}]"


def _batches(inputs: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Whole batches, the last one padded with zeros."""
    for start in range(0, len(inputs), size):
        batch = inputs[start : start + size]
        missing = size - len(batch)
        if missing:
            batch = np.concatenate([batch, np.zeros((missing, *inputs.shape[1:]), inputs.dtype)])
        yield np.ascontiguousarray(batch)


def open_bundle(path: Path, runtime: str | None, threads: int | None) -> BundleModel:
    """What `pipeline.load_bundle` does, which see."""
    check_bundle(path)
    record = ServingRecord.load(path)
    info = choose_runtime(record, runtime)
    engine = open_engine(path, record, info, choose_threads(record, threads))
    return BundleModel(record, read_json(path / "certificate.json"), engine, info.name)

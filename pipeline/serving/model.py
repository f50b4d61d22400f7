"""A bundle as a function: arrays, pictures or texts in, outputs or what they mean out, on its certified runtime."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeGuard

import numpy as np
from numpy.typing import NDArray

from calibration.tokens import TOKENIZER
from pipeline.releases.bundle import check_bundle
from pipeline.run_folder import read_json
from pipeline.serving.classification import ClassScore, Picture, open_picture, rank
from pipeline.serving.engine import Engine, choose_runtime, choose_threads, open_engine
from pipeline.serving.errors import InputError
from pipeline.serving.record import CLASSIFICATIONS, ServingRecord, TensorSpec
from pipeline.serving.tasks import TASKS
from pipeline.serving.texts import Text, TextReader, are_texts


class BundleModel:
    """The network of a bundle; a context manager.

    It may be called from any number of threads. Batches are run one after another: the engine already computes with
    every thread that was certified, and a second one would only fight it for the cores.

    Args:
        folder: the bundle.
        record: how it is fed and read.
        certificate: what was measured.
        runtime: what it runs on.
    """

    def __init__(
        self, folder: Path, record: ServingRecord, certificate: dict[str, Any], engine: Engine, runtime: str
    ) -> None:
        self.record, self.certificate, self.runtime = record, certificate, runtime
        self._folder = folder
        self._engine: Engine | None = engine
        self._lock = threading.Lock()
        first, *others = record.inputs
        self._only = None if others else (first.shape, np.dtype(first.dtype))

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

    def __call__(self, inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | str | Sequence[Text]) -> NDArray[Any]:
        """Outputs [n, …] of preprocessed inputs [n, …], n of any size: the last batch is padded and cut.

        Args:
            inputs: the array, or the arrays by the names of the network's inputs where it has several; or, for a
                language network, a text, or n of them, each a string or a pair of strings.

        Raises:
            InputError: another type or shape than the network takes, or no sample at all.
            RuntimeMissingError: the runtime failed.
        """
        if self._is_the_batch(inputs):
            return self._run([inputs])
        arrays = self._arrays(self.tokens(inputs) if are_texts(inputs) else inputs)
        count = len(arrays[0])
        if count == self.record.batch_size:
            return self._run([np.ascontiguousarray(array) for array in arrays])
        outputs = np.concatenate([self._run(batch) for batch in _batches(arrays, self.record.batch_size)])
        return outputs[:count]

    def predict(self, sample: Any) -> Any:
        """What the network says of one sample.

        Args:
            sample: for image classification and object detection an image file, an opened image, or pixels [height,
                width(, 3)] as uint8; for text classification and sentence similarity a text, or a pair of them; for
                question answering a question and its context.

        Returns:
            every class with its probability, the most probable one first (`ClassScore`); the objects in the image
            (`FoundObject`); the `Answer`; or the embedding [hidden].

        Raises:
            InputError: the sample is of another kind, or the task one that has no such answers.
            DataError: it is no readable image.
        """
        if self.record.task not in TASKS:
            raise InputError(f"{self.record.model} does {self.record.task}: it takes and gives arrays.")
        return TASKS[self.record.task](self, sample)

    def preprocess(self, picture: Picture) -> NDArray[np.float32]:
        """One image as the network takes it, [channels, height, width].

        Raises:
            InputError: the network takes no images.
            DataError: it is no readable image.
        """
        if self.record.preprocessing is None:
            raise InputError(f"{self.record.model} takes no images. Give it arrays of {self._wanted()}.")
        return self.record.preprocessing(open_picture(picture))

    def tokens(self, texts: str | Sequence[Text]) -> dict[str, NDArray[np.int64]]:
        """A text, or n of them, as the network takes them: arrays [n, length] by the names of its inputs.

        Raises:
            InputError: the network takes no texts.
            RuntimeMissingError: the package `tokenizers` is not installed.
        """
        return self.reader.tokens([texts] if isinstance(texts, str) else texts)

    @cached_property
    def reader(self) -> TextReader:
        """The bundle's tokenizer.

        Raises:
            InputError: it has none.
        """
        path = self._folder / TOKENIZER
        if not path.exists():
            raise InputError(f"{self.record.model} takes no texts. Give it arrays of {self._wanted()}.")
        return TextReader(path, [spec.name for spec in self.record.inputs])

    def classify(self, outputs: NDArray[Any]) -> list[list[ClassScore]]:
        """Every class of every sample with its probability, the most probable one first.

        Raises:
            InputError: the network is no classifier.
        """
        if self.record.task not in CLASSIFICATIONS:
            raise InputError(f"{self.record.model} is no classifier but does {self.record.task}: it gives arrays.")
        return rank(outputs, self.record.classes)

    def _run(self, batch: Sequence[NDArray[Any]]) -> NDArray[Any]:
        with self._lock:
            if self._engine is None:
                raise ValueError("this bundle is closed: load it again")
            return self._engine.run(batch)

    def _is_the_batch(self, inputs: Any) -> TypeGuard[NDArray[Any]]:
        """Whether it is the one array that the runtime takes, as it takes it: then nothing is left to do to it."""
        if type(inputs) is not np.ndarray or (inputs.shape, inputs.dtype) != self._only:
            return False
        return inputs.flags.c_contiguous

    def _arrays(self, inputs: Any) -> list[NDArray[Any]]:
        """The checked arrays in the model's order."""
        specs = self.record.inputs
        given = inputs if isinstance(inputs, Mapping) else {specs[0].name: inputs}
        if set(given) != {spec.name for spec in specs}:
            raise InputError(f"the network takes {self._wanted()}. Give them by name: model({{name: array}}).")
        arrays = [self._checked(spec, given[spec.name]) for spec in specs]
        if len({len(array) for array in arrays}) > 1:
            raise InputError(f"inputs have unlike numbers of samples: {[len(array) for array in arrays]}.")
        return arrays

    def _checked(self, spec: TensorSpec, array: Any) -> NDArray[Any]:
        if not isinstance(array, np.ndarray):
            raise InputError(f"inputs are a {type(array).__name__}. Give a numpy array of {_wanted(spec)}.")
        if array.shape == spec.shape[1:]:
            raise InputError(f"inputs have the shape {array.shape}, one sample. Put the batch in front: inputs[None].")
        if array.shape[1:] != spec.shape[1:] or not len(array):
            raise InputError(f"inputs have the shape {array.shape}. Give {_wanted(spec)}, n at least 1.")
        if array.dtype != np.dtype(spec.dtype):
            raise InputError(
                f"inputs are {array.dtype}. Give {_wanted(spec)}: preprocessed as for training, then "
                f"inputs.astype(numpy.{spec.dtype})."
            )
        return array

    def _wanted(self) -> str:
        if len(self.record.inputs) == 1:
            return _wanted(self.record.inputs[0])
        return ", ".join(f"{spec.name} {_wanted(spec)}" for spec in self.record.inputs)


def _wanted(spec: TensorSpec) -> str:
    return f"{spec.dtype} [n, {', '.join(map(str, spec.shape[1:]))}]"


def _batches(arrays: Sequence[NDArray[Any]], size: int) -> Iterator[list[NDArray[Any]]]:
    """Whole batches, the last one filled up by repeating its last sample."""
    count = len(arrays[0])
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        yield [np.ascontiguousarray(array[rows]) for array in arrays]


def open_bundle(path: Path, runtime: str | None, threads: int | None, own_process: bool) -> BundleModel:
    """What `pipeline.load_bundle` does, which see."""
    check_bundle(path)
    record = ServingRecord.load(path)
    info = choose_runtime(record, runtime)
    engine = open_engine(path, record, info, choose_threads(record, threads), own_process)
    return BundleModel(path, record, read_json(path / "certificate.json"), engine, info.name)

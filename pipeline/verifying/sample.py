"""Samples with labels, on which a verification scores a network: a file of the user's, or the bundle's own."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.record import TensorSpec
from targets.errors import ConfigError

SAMPLE = "sample.npz"
"""Of a bundle that was asked to carry one."""


def write_sample(path: Path, feeds: Mapping[str, NDArray[Any]], labels: NDArray[np.int64]) -> None:
    """Write preprocessed inputs [n, …] by name and their labels [n] as `read_sample` reads them."""
    named = {"inputs": next(iter(feeds.values()))} if len(feeds) == 1 else dict(feeds)
    part = path.with_name(f"part-{path.name}")
    np.savez_compressed(part, labels=labels, **named)  # type: ignore[arg-type]
    part.replace(path)


def read_sample(path: Path, inputs: Sequence[TensorSpec]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Preprocessed inputs [n, …] by name and labels [n] of an .npz file.

    Args:
        path: holds ``labels``, and ``inputs`` or, for a network with several, every input by its name.
        inputs: that the network takes.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    keys = ["inputs"] if len(inputs) == 1 else [spec.name for spec in inputs]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            given, labels = [arrays[key] for key in keys], arrays["labels"]
    except (OSError, ValueError, KeyError, AttributeError, EOFError) as error:
        raise ConfigError(
            f"{path} is no sample: an .npz file with {', '.join(keys)} [n, …] and labels [n] ({error})."
        ) from None
    fits = all(array.shape[:1] == labels.shape for array in given) and len(labels)
    if not fits or not np.issubdtype(labels.dtype, np.integer):
        shapes = ", ".join(str(array.shape) for array in given)
        raise ConfigError(f"{path}: inputs {shapes} and labels {labels.shape} {labels.dtype} do not fit together.")
    pairs = zip(inputs, given, strict=True)
    return {spec.name: array.astype(spec.dtype, copy=False) for spec, array in pairs}, labels.astype(np.int64)

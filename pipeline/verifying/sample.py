"""Samples with the right answers, on which a verification scores a network: a file of the user's, or the bundle's."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.datasets import Truth
from pipeline.scoring.base import Scorer
from pipeline.serving.record import TensorSpec
from targets.errors import ConfigError
from targets.files import write_atomically

SAMPLE = "sample.npz"
"""Of a bundle that was asked to carry one."""


def write_sample(path: Path, feeds: Mapping[str, NDArray[Any]], truth: Truth) -> None:
    """Write preprocessed inputs [n, …] by name and what is right of them as `read_sample` reads them."""
    named = {"inputs": next(iter(feeds.values()))} if len(feeds) == 1 else dict(feeds)
    content = io.BytesIO()
    np.savez_compressed(content, **named, **truth)  # type: ignore[arg-type]
    write_atomically(path, content.getvalue())


def read_sample(path: Path, inputs: Sequence[TensorSpec], scorer: Scorer) -> tuple[dict[str, NDArray[Any]], Truth]:
    """Preprocessed inputs [n, …] by name, and what is right of them, of an .npz file.

    Args:
        path: holds the truth's arrays, and ``inputs`` or, for a network with several, every input by its name.
        inputs: that the network takes.
        scorer: of what it does.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    keys = ["inputs"] if len(inputs) == 1 else [spec.name for spec in inputs]
    asked = [key for key in scorer.keys if key not in scorer.optional]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            given = [arrays[key] for key in keys]
            truth = {key: arrays[key] for key in scorer.keys if key in arrays or key in asked}
    except (OSError, ValueError, KeyError, AttributeError, EOFError) as error:
        described = ", ".join(f"{key} {scorer.keys[key]}" for key in asked)
        wanted = f"an .npz file with {', '.join(keys)} [n, …], {described}"
        raise ConfigError(f"{path} is no sample: {wanted} ({error}).") from None
    rows = len(given[0]) if given[0].ndim else 0
    shapes = ", ".join(str(array.shape) for array in given)
    if not rows or any(array.shape[:1] != (rows,) for array in given):
        raise ConfigError(f"{path}: the inputs {shapes} do not fit together.")
    if problem := scorer.problem(truth, rows):
        raise ConfigError(f"{path}: inputs {shapes} and what is right of them do not fit together: {problem}.")
    pairs = zip(inputs, given, strict=True)
    return {spec.name: array.astype(spec.dtype, copy=False) for spec, array in pairs}, truth

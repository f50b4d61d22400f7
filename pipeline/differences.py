"""How far outputs are from others, each kind of number on its own scale."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

INT8_STEPS = 0.1
"""Root mean square, over the largest output, up to which outputs in int8 are those of the same network: a single value
between two steps of 8 bits moves far, on another CPU as against torch."""


def relative_differences(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """[n, …] absolute differences over the largest expected output.

    Outputs of several numbers at every place, [n, places, numbers], are each held against their own scale: boxes in
    pixels must not hide probabilities.
    """
    scale = np.abs(expected).max(axis=(0, 1) if expected.ndim > 2 else None)
    found_apart: NDArray[Any] = np.abs(found - expected) / np.maximum(scale, np.finfo(np.float32).tiny)
    return found_apart

"""How far outputs are from others, each kind of number on its own scale."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def relative_differences(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """[n, …] absolute differences over the largest expected output.

    Outputs of several numbers at every place, [n, places, numbers], are each held against their own scale: boxes in
    pixels must not hide probabilities.
    """
    scale = np.abs(expected).max(axis=(0, 1) if expected.ndim > 2 else None)
    found_apart: NDArray[Any] = np.abs(found - expected) / np.maximum(scale, np.finfo(np.float32).tiny)
    return found_apart

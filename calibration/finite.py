"""Samples that can be computed with."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.errors import DataError


def require_finite(inputs: NDArray[Any], name: str, rows: NDArray[np.int64] | None = None) -> None:
    """Refuse NaN and infinity, which networks turn into answers all the same.

    Args:
        inputs: [n, …].
        name: of the samples, for the message.
        rows: [n] where they stand in the data; counted from 0 if None.

    Raises:
        DataError: says how many samples hold such values, and which is the first.
    """
    broken = np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))
    if len(broken):
        first = broken[0] if rows is None else rows[broken[0]]
        raise DataError(
            f"{len(broken)} {name} samples hold NaN or infinity, the first is {first}. Leave them out, or mend them."
        )

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
        rows: [n] where they stand in the data, as far as that is known.

    Raises:
        DataError: says how many samples hold such values, and which is the first.
    """
    if np.isfinite(inputs).all():
        return
    broken = np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))
    first = "" if rows is None else f", the first is {rows[broken[0]]}"
    raise DataError(f"{len(broken)} {name} samples hold NaN or infinity{first}. Leave them out, or mend them.")

"""The least accuracy that a network must hold; fractions are held against percent."""

ROUNDING = 1e-9
"""Of percent: 0.9 - 0.89 is a little more than a point in floating point."""


def is_below_floor(accuracy: float, dense: float, max_drop: float | None, min_accuracy: float | None) -> bool:
    """Whether an accuracy is less than was asked for.

    Args:
        accuracy: of the compressed network, between 0 and 1.
        dense: of the dense one, likewise.
        max_drop: points that may be lost; None for any.
        min_accuracy: percent that must be held; None for any.
    """
    if max_drop is not None and 100 * (dense - accuracy) > max_drop + ROUNDING:
        return True
    return min_accuracy is not None and 100 * accuracy < min_accuracy - ROUNDING

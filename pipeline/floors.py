"""The least accuracy that a network must hold: ``--min-accuracy`` and ``--max-drop``."""

from pipeline.config import RunConfig
from pipeline.context import Run

ROUNDING = 1e-9
"""Of percent: 0.9 - 0.89 is a little more than a point in floating point."""


def has_floor(config: RunConfig) -> bool:
    """Whether one was asked for."""
    return config.min_accuracy is not None or config.max_drop is not None


def is_too_low(config: RunConfig, accuracy: float, dense: float) -> bool:
    """Whether an accuracy is below a floor; fractions both, whereas floors are in percent."""
    drop_points = 100 * (dense - accuracy)
    most, floor = config.max_drop, config.min_accuracy
    return (most is not None and drop_points > most + ROUNDING) or (
        floor is not None and 100 * accuracy < floor - ROUNDING
    )


def holds_floor(run: Run, accuracy: float) -> bool:
    """Whether an accuracy on the held-out split is as much as was asked for."""
    config = run.config
    return not has_floor(config) or not is_too_low(config, accuracy, run.dense_accuracy)

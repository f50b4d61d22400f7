"""The least accuracy that a network must hold: ``--min-accuracy`` and ``--max-drop``."""

from pipeline.config import RunConfig
from pipeline.context import Run
from reports.floors import is_below_floor


def has_floor(config: RunConfig) -> bool:
    """Whether one was asked for."""
    return config.min_accuracy is not None or config.max_drop is not None


def is_too_low(config: RunConfig, accuracy: float, dense: float) -> bool:
    """Whether an accuracy is below a floor; fractions both, whereas floors are in percent."""
    return is_below_floor(accuracy, dense, config.max_drop, config.min_accuracy)


def holds_floor(run: Run, accuracy: float) -> bool:
    """Whether an accuracy on the held-out split is as much as was asked for."""
    config = run.config
    return not has_floor(config) or not is_too_low(config, accuracy, run.dense_accuracy)

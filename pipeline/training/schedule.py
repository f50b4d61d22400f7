"""Schedules over training steps, as plain functions."""

import math


def cubic_sparsity(step: int, steps: int, start: float, final: float) -> float:
    """Sparsity that rises fast at first, while there is much to remove, and slowly at the end.

    s = final + (start - final) (1 - step / steps)³, and ``final`` from ``steps`` on (Zhu & Gupta, 2017, equation 1).

    Args:
        step: that is about to run, from 0.
        steps: in which the sparsity rises; 0 gives ``final`` at once.
        start: sparsity at step 0.
        final: sparsity at the end.
    """
    if step >= steps:
        return final
    return final + (start - final) * (1 - step / steps) ** 3


def cosine_lr(step: float, steps: float, peak: float, warmup: int = 0) -> float:
    """Learning rate that rises in a line over ``warmup`` steps and falls to zero along a cosine.

    Args:
        step: that is about to run, from 0; or how much of ``steps`` is over, in whatever they are counted.
        steps: in all.
        peak: largest learning rate.
        warmup: steps in which it rises.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1.0)))

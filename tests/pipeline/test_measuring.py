"""What a measurement says, and what it is trusted with."""

import numpy as np
import pytest

from pipeline.measuring import ratio, trust
from profilers.statistics import Process


def _process(rng: np.random.Generator, spread: float) -> Process:
    """Four compilations whose ratio scatters."""
    return [(np.full(8, 0.01 * np.exp(rng.normal(0, spread))), np.full(8, 0.03)) for _ in range(4)]


def test_a_ratio_is_the_geometric_mean_over_processes_and_compilations_of_the_ratio_of_medians() -> None:
    halves = (np.array([1.0, 1.0, 9.0]), np.array([2.0, 2.0, 2.0]))
    eighths = (np.array([1.0]), np.array([8.0]))
    assert ratio([[halves, eighths]]) == pytest.approx(0.25)
    assert ratio([[halves], [eighths, eighths]]) == pytest.approx(0.25)


def test_the_more_compilations_scatter_the_less_a_measurement_is_trusted() -> None:
    rng = np.random.default_rng(0)
    weights = [trust([_process(rng, spread)]) for spread in (0.001, 0.02, 0.2)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] > 0.95
    assert weights[2] < 0.2

"""Small layers with known Hessians."""

import numpy as np

from pipeline.compression.hessians import Matrix


def layer(rows: int, size: int, seed: int = 0, samples: int = 400, scale: float = 1.0) -> tuple[Matrix, Matrix, Matrix]:
    """Hessian [size, size], weight [rows, size] and inputs X [size, samples], correlated as real ones are."""
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(size, size)) / np.sqrt(size) + np.diag(rng.uniform(0.3, 1.5, size))
    inputs = scale * np.maximum(mix @ rng.normal(size=(size, samples)) + 0.2, 0)
    return 2 * inputs @ inputs.T, rng.normal(size=(rows, size)), inputs

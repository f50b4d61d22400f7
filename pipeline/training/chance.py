"""What a network's own layers draw at random, such as dropout: by seed and step, so that a resumed run draws alike."""

import numpy as np
import torch


def seed_layers(*parts: int) -> None:
    """Have torch draw from here on by these numbers alone, such as a seed and a step."""
    torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))

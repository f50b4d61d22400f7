"""Learning from the dense network's answers."""

from torch import Tensor
from torch.nn import functional

SHARE = 0.9
"""Of the dense network's answers in a training loss; the rest is the labels'."""


def divergence(outputs: Tensor, dense_outputs: Tensor) -> Tensor:
    """KL(dense ‖ outputs) of the distributions that logits stand for, softmax over axis 1: [n, …] without that axis."""
    log_p, log_q = dense_outputs.float().log_softmax(1), outputs.float().log_softmax(1)
    return (log_p.exp() * (log_p - log_q)).sum(1)


def distilled(outputs: Tensor, dense_outputs: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Cross-entropy and softened divergence times T², to keep its gradient (Hinton et al., 2015)."""
    soft = divergence(outputs / temperature, dense_outputs / temperature).mean() * temperature**2
    return SHARE * soft + (1 - SHARE) * functional.cross_entropy(outputs.float(), labels)

"""Masks: which weights of a unit stay, as boolean tensors of the weight's shape."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pipeline.compression.criteria import kept_count

Masks = Mapping[str, Tensor]


def magnitude_mask(weight: Tensor, sparsity: float) -> Tensor:
    """Keeps the ``round((1 - sparsity) * n)`` largest of the n weights; of equal ones, those that come later.

    Args:
        weight: of any shape.
        sparsity: fraction to remove, 0 <= sparsity <= 1.
    """
    removed = weight.numel() - kept_count(weight.numel(), sparsity)
    mask = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[torch.argsort(weight.detach().abs().flatten(), stable=True)[:removed]] = False
    return mask.reshape(weight.shape)


def nonzero_masks(model: nn.Module, units: Iterable[str]) -> dict[str, Tensor]:
    """Masks that keep what is not zero in the weights of ``units``."""
    return {unit: _weight(model, unit).detach() != 0 for unit in units}


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set the weights that ``masks`` do not keep to zero, in place."""
    with torch.no_grad():
        for unit, mask in masks.items():
            _weight(model, unit).mul_(mask)


def sparsity(masks: Masks) -> float:
    """Fraction of zeros in all ``masks`` together; 0 without masks."""
    total = sum(mask.numel() for mask in masks.values())
    return 1.0 - sum(int(mask.sum()) for mask in masks.values()) / total if total else 0.0


def _weight(model: nn.Module, unit: str) -> nn.Parameter:
    return model.get_parameter(f"{unit}.weight")

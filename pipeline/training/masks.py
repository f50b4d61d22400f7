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


def planned_mask(weight: Tensor, planned: Tensor, sparsity: float) -> Tensor:
    """On the way to a planned mask: keeps all that it keeps, and of the others the largest.

    Args:
        weight: of any shape.
        planned: mask of the same shape, that at full sparsity is reached.
        sparsity: fraction to remove, at most that of the plan.
    """
    return magnitude_mask(weight.detach().abs().masked_fill(planned, torch.inf), sparsity) | planned


def nonzero_masks(model: nn.Module, units: Iterable[str]) -> dict[str, Tensor]:
    """Masks that keep what is not zero in the weights of ``units``."""
    return {unit: _weight(model, unit).detach() != 0 for unit in units}


def column_masks(model: nn.Module, units: Iterable[str]) -> dict[str, Tensor]:
    """Masks that keep the columns (inputs of all outputs) of the weights of ``units`` that are not zero all over."""
    weights = {unit: _weight(model, unit).detach() for unit in units}
    return {unit: (weight != 0).any(dim=0).expand_as(weight).clone() for unit, weight in weights.items()}


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

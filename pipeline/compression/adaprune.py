"""AdaPrune as the authors of SPDY have it, kept for comparison: magnitude masks and Adam on each layer's weights."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call

from calibration.statistics import LayerStatistics, capture_inputs
from pipeline.compression.criteria import magnitude_mask
from pipeline.compression.database import UnitPlan
from pipeline.compression.hessians import Mask, Matrix
from pipeline.models.base import Unit
from targets.levels import Level

NAME = "adaprune"
"""As a solver."""
LEARNING_RATE = 1e-3
PASSES = 10
BATCH_SIZE = 32


def adaprune_plans(
    units: Sequence[Unit], levels: Sequence[Level], dense: nn.Module, batches: Iterable[Tensor]
) -> dict[str, UnitPlan]:
    """Unit → how AdaPrune makes its levels.

    Args:
        levels: dense and unstructured ones.
        dense: the network that the units belong to.
        batches: network inputs [n, …]; gone through once a unit.
    """
    sparsities = [level.amount for level in levels if level.amount > 0]

    def plan(unit: Unit) -> UnitPlan:
        return UnitPlan(levels, partial(_weights, dense, unit.members[0], batches, sparsities), (NAME,))

    return {unit.name: plan(unit) for unit in units}


def _weights(
    dense: nn.Module,
    name: str,
    batches: Iterable[Tensor],
    sparsities: Sequence[float],
    _: LayerStatistics,
    __: Matrix,
) -> Iterator[Matrix]:
    """Every level's weights [rows, d] of a layer, by what it sees in the dense network."""
    layer, inputs = dense.get_submodule(name), capture_inputs(dense, name, batches)
    return (weight for weight, _ in adaprune(layer, inputs, sparsities))


def adaprune(layer: nn.Module, inputs: Tensor, sparsities: Sequence[float]) -> Iterator[tuple[Matrix, Mask]]:
    """Weights and mask [rows, d] of every level, each level starting from the one before it.

    Adam on the weight alone (learning rate 1e-3, batches of 32, 10 passes a level) minimises the squared difference to
    the dense layer's outputs relative to their square; the magnitude mask is applied again after every step.
    Source: Hubara et al. 2021; Frantar & Alistarh 2022, SPDY.

    Args:
        layer: the dense layer; unchanged afterwards.
        inputs: [n, ...] what the layer sees in the dense network.
        sparsities: of the levels, ascending.
    """
    with torch.no_grad():
        targets = torch.cat([layer(batch) for batch in torch.split(inputs, BATCH_SIZE)])
    parameter = layer.get_parameter("weight")
    weight = parameter.detach().clone().requires_grad_(True)
    for sparsity in sparsities:
        rows = weight.detach().flatten(1).double().numpy()
        mask = magnitude_mask(rows, sparsity)
        _optimise(layer, weight, torch.from_numpy(mask).view_as(weight), inputs, targets)
        yield weight.detach().flatten(1).double().numpy().copy(), mask


def _optimise(layer: nn.Module, weight: Tensor, mask: Tensor, inputs: Tensor, targets: Tensor) -> None:
    """Train ``weight`` in place on one level."""
    optimiser = torch.optim.Adam([weight], lr=LEARNING_RATE)
    with torch.no_grad():
        weight *= mask
    for _ in range(PASSES):
        for batch, target in zip(torch.split(inputs, BATCH_SIZE), torch.split(targets, BATCH_SIZE), strict=True):
            outputs = functional_call(layer, {"weight": weight}, (batch,))
            loss = (outputs - target).square().sum() / target.square().sum()
            (weight.grad,) = torch.autograd.grad(loss, [weight])
            optimiser.step()
            with torch.no_grad():
                weight *= mask

"""What one layer sees in two networks on the same data: the moments that a fit from the one to the other needs."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.errors import DataError
from calibration.padding import real_positions, without_padding
from calibration.statistics import Layer, columns_of_weight, patches


@dataclass(frozen=True, slots=True)
class PairedMoments:
    """Sums over all input columns x of a layer in a network, and y in its reference.

    Args:
        own: [groups, d, d] Σ x xᵀ, columns in the order of ``weight.flatten(1)``.
        cross: [groups, d, d] Σ y xᵀ.
        own_sum: [groups, d] Σ x.
        reference_sum: [groups, d] Σ y.
        count: of columns.
    """

    own: NDArray[np.float64]
    cross: NDArray[np.float64]
    own_sum: NDArray[np.float64]
    reference_sum: NDArray[np.float64]
    count: int

    def centred(self) -> "PairedMoments":
        """Of columns less their means, for a layer whose bias can make up for those."""
        own = self.own - self.own_sum[:, :, None] * self.own_sum[:, None, :] / self.count
        cross = self.cross - self.reference_sum[:, :, None] * self.own_sum[:, None, :] / self.count
        return PairedMoments(own, cross, self.own_sum, self.reference_sum, self.count)


def paired_moments(network: nn.Module, reference: nn.Module, name: str, batches: Iterable[Tensor]) -> PairedMoments:
    """Moments of a layer's inputs in both networks, whose modes stay as they are.

    Args:
        network: with the layer.
        reference: with a layer of the same shape under the same name.
        name: of an `nn.Conv2d` or `nn.Linear`.
        batches: inputs [n, …] of both networks.

    Raises:
        DataError: there is no batch, a network does not reach the layer, or its inputs are not finite.
    """
    layer = network.get_submodule(name)
    assert isinstance(layer, Layer)
    order = columns_of_weight(layer)
    sums: list[NDArray[np.float64]] = []
    count = 0
    for mine, theirs in zip(_inputs(network, name, batches), _inputs(reference, name, batches), strict=True):
        for x, y in zip(patches(layer, mine), patches(layer, theirs), strict=True):
            parts = [torch.bmm(a.transpose(1, 2), x) for a in (x, y)] + [x.sum(dim=1), y.sum(dim=1)]
            doubles = [part.double().numpy() for part in parts]
            sums = [total + part for total, part in zip(sums, doubles, strict=True)] if sums else doubles
            count += x.shape[1]
    if not count:
        raise DataError(f"Layer {name} saw no data: there is no batch")
    if not all(np.isfinite(total).all() for total in sums):
        raise DataError(f"The inputs of layer {name} hold NaN or infinity: check the data and the weights")
    own, cross, own_sum, reference_sum = sums
    return PairedMoments(
        own[:, order[:, None], order],
        cross[:, order[:, None], order],
        own_sum[:, order],
        reference_sum[:, order],
        count,
    )


class _Reached(Exception):  # noqa: N818 - no error: what follows the layer need not run
    """The layer has been reached."""


def _inputs(network: nn.Module, name: str, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The layer's inputs without padding, a batch at a time."""
    for batch in batches:
        with _caught(network, name) as caught, torch.no_grad():
            network(batch)
        if not caught:
            raise DataError(f"Layer {name} saw no data: the network never runs it")
        inputs = without_padding(caught[0], real_positions(network, batch))
        yield inputs if inputs.dtype == torch.float64 else inputs.float()


@contextmanager
def _caught(network: nn.Module, name: str) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        caught.append(inputs[0])
        raise _Reached

    handle = network.get_submodule(name).register_forward_pre_hook(keep)
    try:
        yield caught
    except _Reached:
        pass
    finally:
        handle.remove()

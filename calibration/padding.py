"""Padding: positions of a sample that hold nothing, and that nothing may be learnt from."""

from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class PaddedNetwork(Protocol):
    """A network whose samples may end in padding."""

    def real_positions(self, samples: Tensor) -> Tensor:
        """[n, positions] True where a position is real, for the positions that the network computes."""


def real_positions(model: nn.Module, samples: Tensor) -> Tensor | None:
    """[n, positions] True where a position of ``samples`` is real inside of ``model``; None where all are."""
    return model.real_positions(samples) if isinstance(model, PaddedNetwork) else None


def without_padding(values: Tensor, real: Tensor | None) -> Tensor:
    """Rows [rows, d] of the real positions of ``values`` [n, positions, d]; other values as they are."""
    if real is None or values.ndim != 3 or values.shape[:2] != real.shape:
        return values
    return values[real]

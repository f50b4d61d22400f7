"""Outputs of a network's blocks, held against those of the dense network's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from calibration.padding import without_padding

Outputs = Mapping[str, Tensor]
"""Output of every block by its name."""


@contextmanager
def captured(model: nn.Module, names: Sequence[str]) -> Iterator[Outputs]:
    """A dictionary that holds the latest output of each of the named modules."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, object, Tensor | tuple[Tensor, ...]], None]:
        return lambda _, __, output: outputs.update({name: output[0] if isinstance(output, tuple) else output})

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def block_error(outputs: Outputs, expected: Outputs, real: Tensor | None) -> Tensor:
    """Sum over blocks of ‖outputs - expected‖² / ‖expected‖², in float32; zero where there are no blocks.

    Args:
        outputs: of the compressed network's blocks.
        expected: of the dense network's.
        real: [n, positions] True where a position is no padding, which does not count; None where all are real.
    """
    if not expected:
        return torch.zeros(())
    pairs = [(without_padding(outputs[name], real), without_padding(expected[name], real)) for name in expected]
    return torch.stack([_relative_error(ours.float(), theirs.float()) for ours, theirs in pairs]).sum()


def _relative_error(outputs: Tensor, expected: Tensor) -> Tensor:
    return (outputs - expected).square().sum() / expected.square().sum().clamp_min(torch.finfo(torch.float32).tiny)

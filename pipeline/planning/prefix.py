"""Outputs of a network's blocks, kept from one plan to the next: what lies before the first changed unit is not run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.search.losses import Plan

KEPT_BYTES = 2**30
"""Of outputs of one batch; blocks beyond that are run every time."""


class SharedPrefix:
    """Runs a network for several plans on one batch, and gives blocks their last outputs while nothing before changed.

    What a block depends on is taken from the order in which modules run on a sample: every unit that has run when the
    block ends. Outputs that a later operation changed in place are not used again.

    Args:
        network: in eval mode, under `torch.no_grad`.
        blocks: names of modules whose outputs are kept; those that do not run exactly once are left out.
        units: names of every unit's modules.
        sample: [1, …] an input.
    """

    def __init__(
        self, network: nn.Module, blocks: Sequence[str], units: Sequence[Sequence[str]], sample: Tensor
    ) -> None:
        self._network = network
        self._depends = _dependencies(network, blocks, units, sample)
        self._blocks = {name: network.get_submodule(name) for name in self._depends}
        self._kept: dict[str, tuple[Any, list[int]]] = {}
        self._plan: Plan = ()
        self._blocks_run = self._blocks_reused = 0

    def forget(self) -> tuple[int, int]:
        """Another batch comes; how many blocks ran since the last one, and how many outputs were taken over."""
        counts = self._blocks_run, self._blocks_reused
        self._blocks_run = self._blocks_reused = 0
        self._kept.clear()
        return counts

    def __call__(self, inputs: Tensor, plan: Plan, keep: bool = True) -> Tensor:
        """The network's outputs; ``plan`` says which weights it holds, ``keep`` whether another plan will follow."""
        valid = [name for name in self._kept if self._is_valid(name, plan)]
        self._kept = {name: self._kept[name] for name in valid}
        self._plan = plan
        self._blocks_reused += len(valid)
        self._blocks_run += len(self._blocks) - len(valid)
        with self._replaced(valid), self._keeping([name for name in self._blocks if keep and name not in valid]):
            outputs: Tensor = self._network(inputs)
        return outputs

    def _is_valid(self, name: str, plan: Plan) -> bool:
        output, versions = self._kept[name]
        unchanged = versions == [tensor._version for tensor in _tensors(output)]
        return unchanged and all(plan[unit] == self._plan[unit] for unit in self._depends[name])

    @contextmanager
    def _replaced(self, names: Sequence[str]) -> Iterator[None]:
        """Blocks that answer with what they gave last time."""
        for name in names:
            output = self._kept[name][0]
            self._blocks[name].forward = lambda *_, output=output, **__: output
        try:
            yield
        finally:
            for name in names:
                del self._blocks[name].forward

    @contextmanager
    def _keeping(self, names: Sequence[str]) -> Iterator[None]:
        room = KEPT_BYTES - sum(_bytes(output) for output, _ in self._kept.values())

        def keep(name: str, output: Any) -> None:
            nonlocal room
            room -= _bytes(output)
            if room >= 0:
                self._kept[name] = (output, [tensor._version for tensor in _tensors(output)])

        handles = [
            self._blocks[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            for name in names
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _dependencies(
    network: nn.Module, blocks: Sequence[str], units: Sequence[Sequence[str]], sample: Tensor
) -> dict[str, frozenset[int]]:
    """Block → positions of the units that have run when it ends, of the blocks that run exactly once."""
    seen: set[int] = set()
    found: dict[str, list[frozenset[int]]] = {name: [] for name in blocks}

    def ended(name: str) -> None:
        found[name].append(frozenset(seen))

    handles = [
        network.get_submodule(module).register_forward_pre_hook(lambda *_, i=i: seen.add(i))
        for i, modules in enumerate(units)
        for module in modules
    ]
    handles += [network.get_submodule(name).register_forward_hook(lambda *_, name=name: ended(name)) for name in blocks]
    try:
        with torch.no_grad():
            network(sample)
    finally:
        for handle in handles:
            handle.remove()
    return {name: ends[0] for name, ends in found.items() if len(ends) == 1}


def _tensors(output: Any) -> list[Tensor]:
    parts = output if isinstance(output, tuple | list) else (output,)
    return [part for part in parts if isinstance(part, Tensor)]


def _bytes(output: Any) -> int:
    return sum(tensor.nbytes for tensor in _tensors(output))

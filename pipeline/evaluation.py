"""Losses of candidate plans on the calibration set, without copying the network."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from calibration.batch_norm import batch_statistics
from pipeline.compression.stitch import Stitcher
from pipeline.run_folder import Log
from targets.levels import Level

Loss = Callable[[Tensor, Tensor], Tensor]


class CandidateLoss:
    """Mean loss of a stitched network against the dense one's outputs.

    Batch norm normalises every batch with its own statistics: a cheap stand-in for the re-estimation that every
    chosen plan gets, without which the loss would judge shifted statistics rather than lost weights.

    Args:
        network: the network that ``stitcher`` writes into.
        levels: what a choice's positions mean.
        unit_names: unit of every position.
        inputs: [n, …] calibration inputs.
        dense_outputs: [n, …] the dense network's outputs for them.
        loss: [n] losses >= 0, so that a partial sum bounds the whole from below.
        log: complete losses are kept there, and found again by a resumed search.
    """

    def __init__(
        self,
        network: nn.Module,
        stitcher: Stitcher,
        unit_names: Sequence[str],
        levels: Sequence[Level],
        inputs: Tensor,
        dense_outputs: Tensor,
        loss: Loss,
        log: Log,
        batch_size: int = 256,
    ) -> None:
        self._network, self._stitcher, self._log = network, stitcher, log
        self._unit_names, self._levels = tuple(unit_names), tuple(levels)
        self._batches = list(zip(torch.split(inputs, batch_size), torch.split(dense_outputs, batch_size), strict=True))
        self._total, self._loss = len(inputs), loss

    def __call__(self, choice: Sequence[int], limit: float) -> float:
        """The plan's mean loss, or a lower bound of it above ``limit`` as soon as it must exceed that."""
        name = ",".join(map(str, choice))
        if name in self._log:
            bound, complete = self._log[name]
            if complete or bound > limit:
                return float(bound)
        loss, complete = self._evaluate(choice, limit)
        self._log.add(name, [loss, complete])
        return loss

    def _evaluate(self, choice: Sequence[int], limit: float) -> tuple[float, bool]:
        self._stitcher.apply({n: self._levels[i] for n, i in zip(self._unit_names, choice, strict=True)})
        total, last = 0.0, len(self._batches) - 1
        with torch.inference_mode(), batch_statistics(self._network):
            for number, (inputs, dense_outputs) in enumerate(self._batches):
                total += float(self._loss(self._network(inputs), dense_outputs).sum()) / self._total
                if total > limit:
                    return total, number == last
        return total, True


def outputs_of(network: nn.Module, inputs: Tensor, batch_size: int = 256) -> Tensor:
    """[n, …] outputs of a network in eval mode."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([network(batch) for batch in torch.split(inputs, batch_size)])

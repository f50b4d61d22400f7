"""Batch-norm statistics, estimated again for a network whose weights have changed."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from calibration.errors import DataError


def reestimate_batch_norm(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace every batch norm's running mean and variance by the average over ``batches``.

    The average is cumulative and weighs every sample alike, whatever the sizes of the batches: no momentum, and
    nothing remains of the former statistics. Layers other than batch norm run as in evaluation, and the whole model
    is left in eval mode.

    Args:
        model: changed in place; one without batch norm need not run.
        batches: inputs [n, ...], run once each.

    Raises:
        DataError: there is no batch, or a layer's statistics become NaN or infinite.
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    }
    if not norms:
        model.eval()
        return
    momenta = {name: norm.momentum for name, norm in norms.items()}
    model.eval()
    for norm in norms.values():
        norm.reset_running_stats()
        norm.train()
    samples = 0
    try:
        with torch.no_grad():
            for batch in batches:
                samples += len(batch)
                for norm in norms.values():
                    norm.momentum = len(batch) / samples  # makes the running value the mean over all samples so far
                model(batch)
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]
        model.eval()
    if not samples:
        raise DataError("Batch-norm statistics need at least one batch of data")
    for name, norm in norms.items():
        if not (_finite(norm.running_mean) and _finite(norm.running_var)):
            raise DataError(f"The inputs of batch norm {name} hold NaN or infinity: check the data and the weights")


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Have every batch norm normalise each batch by its own statistics, without touching the running ones."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    model.eval()
    for norm in norms:
        norm.track_running_stats = False
        norm.train()
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        model.eval()


def _finite(values: Tensor | None) -> bool:
    return values is None or bool(torch.isfinite(values).all())

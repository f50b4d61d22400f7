"""Units of a network, found by watching its layers run."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.models.base import Unit
from targets.errors import ConfigError

LAYERS = (nn.Conv2d, nn.Linear)


def trace_units(model: nn.Module, sample: Tensor, dense: Collection[str] = ()) -> list[Unit]:
    """Every convolution and linear layer as a unit of its own, in the order in which they run.

    Args:
        model: network, run once in eval mode and left in the mode that it was in.
        sample: [1, …] what it is run on.
        dense: names of the layers that stay dense.

    Raises:
        ConfigError: a layer that is not among them runs more than once, and would be several in a file.
    """
    names: dict[nn.Module, str] = {m: name for name, m in model.named_modules() if isinstance(m, LAYERS)}
    units: dict[str, Unit] = {}

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        name = names[module]
        if name in units and name not in dense:
            raise ConfigError(
                f"{name} runs more than once a sample. Give every use of it a module of its own, or name it in `dense`."
            )
        kind = "conv" if isinstance(module, nn.Conv2d) else "linear"
        shape = tuple(module.get_parameter("weight").shape)
        group = _latency_group(module, inputs[0])
        macs = math.prod(shape) * output.numel() / shape[0]
        units.setdefault(name, Unit(name, kind, (name,), shape, group, name not in dense, macs))

    handles = [module.register_forward_hook(watch) for module in names]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(sample)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return list(units.values())


def _latency_group(module: nn.Module, x: Tensor) -> str:
    """What decides a layer's time: ``conv:IN x OUT x KERNEL x STRIDE @ input HxW`` or ``linear:IN x OUT @ ROWS``."""
    if isinstance(module, nn.Linear):
        rows = "x".join(map(str, x.shape[1:-1])) or "1"
        return f"linear:{module.in_features}x{module.out_features}@{rows}"
    assert isinstance(module, nn.Conv2d)
    kernel, stride = _side(module.kernel_size), _side(module.stride)
    groups = "" if module.groups == 1 else f"/{module.groups}"
    return f"conv:{module.in_channels}x{module.out_channels}x{kernel}x{stride}{groups}@{x.shape[-2]}x{x.shape[-1]}"


def _side(size: tuple[int, ...]) -> str:
    return str(size[0]) if len(set(size)) == 1 else "-".join(map(str, size))

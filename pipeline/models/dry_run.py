"""Does what an adapter gives fit together? Tried on two samples, before hours of work rest on it."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.datasets import Batch, Split, Splits
from calibration.errors import DataError
from pipeline.models.base import Block, ModelAdapter, Unit
from targets.errors import ConfigError, UserError

Result = TypeVar("Result")


def check_data(adapter: ModelAdapter, splits: Splits) -> None:
    """Whether the data that an adapter loaded have everything that the pipeline asks of data.

    Raises:
        ConfigError: something is missing; says what.
    """
    wanted = [*Split.__annotations__, *(name for name, member in vars(Split).items() if inspect.isfunction(member))]
    for part in ("train", "test"):
        split = getattr(splits, part)
        missing = [name for name in wanted if not _has(split, name) and not name.startswith("_")]
        if missing or not _has(split, "__len__"):
            raise _wrong(
                adapter,
                f"{type(split).__name__}, its {part} data, lacks {', '.join(missing) or '__len__()'}: see "
                "calibration.datasets.Split, or give a calibration.arrays.ArraySplit",
            )


def _has(split: Split, member: str) -> bool:
    """Whether data have a member of their own: what a class inherits from the protocol is a stub."""
    own = getattr(type(split), member, None)
    return hasattr(split, member) and (own is None or own is not vars(Split).get(member))


def try_out(adapter: ModelAdapter, network: nn.Module, samples: NDArray[Any]) -> None:
    """Run an adapter's methods on a few samples.

    Args:
        network: that it loaded.
        samples: [n, …] of its training split, one at least.

    Raises:
        ConfigError: what one of them gives is not what the pipeline needs; says which one and what it must give.
    """
    if samples.dtype == np.float64:
        raise _wrong(adapter, "inputs() of the data gives float64; the network is float32: give float32")
    outputs = _outputs(adapter, network, torch.from_numpy(samples))
    _check_deployed(adapter, network, samples)
    losses = adapter.calibration_loss(outputs, outputs)
    if losses.shape != (len(samples),):
        raise _wrong(
            adapter, f"calibration_loss() gives the shape {list(losses.shape)} for {len(samples)} samples: [n]"
        )
    modules = dict(network.named_modules())
    if strange := [name for name in adapter.blocks(network) if name not in modules]:
        raise _wrong(adapter, f"blocks() names modules that the network has not: {', '.join(strange)}")
    one = torch.from_numpy(samples[:1])
    units = {unit.name: unit for unit in _called(adapter, "units() fails", adapter.units, network, one)}
    if tied := _tied(list(units.values()), modules):
        raise _wrong(adapter, f"{' and '.join(tied)} share their weights: copy them, or name both in `dense`")
    blocks = _called(adapter, "widths() fails", adapter.widths, network)
    if shared := _in_two_blocks(blocks):
        raise _wrong(adapter, f"widths() has {', '.join(shared)} in two blocks: put the cuts of both into one")
    for block in blocks:
        if problem := _problem(block, units, modules):
            raise _wrong(adapter, f"widths(), block {block.name}: {problem}")


def try_training(adapter: ModelAdapter, network: nn.Module, batch: Batch) -> None:
    """Run what an adapter trains with on a few samples.

    Args:
        network: that it loaded.
        batch: of its training split.

    Raises:
        ConfigError: as `try_out`.
    """
    labels = torch.from_numpy(batch.labels)
    outputs = _outputs(adapter, network, torch.from_numpy(batch.inputs))
    loss = _called(adapter, "training_loss() fails", adapter.training_loss, outputs, outputs, labels)
    if not isinstance(loss, Tensor) or loss.shape != () or not torch.isfinite(loss):
        found = f"the shape {list(loss.shape)}" if isinstance(loss, Tensor) and loss.shape else f"{loss}"
        raise _wrong(adapter, f"training_loss() gives {found}: it must be one finite number")
    score = _called(adapter, "training_score() fails", adapter.training_score, outputs, labels)
    if not isinstance(score, Tensor) or score.ndim != 1:
        found = f"the shape {list(score.shape)}" if isinstance(score, Tensor) else type(score).__name__
        raise _wrong(adapter, f"training_score() gives {found} for {len(labels)} labels: [n]")


def _check_deployed(adapter: ModelAdapter, network: nn.Module, samples: NDArray[Any]) -> None:
    deployed = adapter.deployed(network).eval()
    if deployed is not network and getattr(deployed, "network", None) is not network:
        raise _wrong(adapter, "deployed() gives a module that does not hold the network as its attribute `network`")
    if deployed is network and hasattr(network, "network"):  # exported layers of a deployed form lose that word
        raise _wrong(adapter, "the network has a part called `network`, which is the deployed form's word: rename it")
    feeds = adapter.feeds(samples)
    if strange := [name for name, array in feeds.items() if array.dtype == np.float64]:
        raise _wrong(adapter, f"feeds() gives float64 for {', '.join(strange)}: give float32")
    _outputs(adapter, deployed, *map(torch.from_numpy, feeds.values()))


def _outputs(adapter: ModelAdapter, network: nn.Module, *inputs: Tensor) -> Tensor:
    count = len(inputs[0])
    outputs = _called(adapter, f"the network fails on {count} training samples", network, *inputs)
    if not isinstance(outputs, Tensor) or outputs.shape[:1] != inputs[0].shape[:1]:
        found = f"shape {list(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise _wrong(adapter, f"the network gives {found} for {count} samples: it must be one tensor [n, …]")
    return outputs


def called(adapter: ModelAdapter, failing: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """What a function of an adapter gives.

    Args:
        failing: what is said where it fails.

    Raises:
        ConfigError: it raised something that explains nothing to a user.
    """
    try:
        return function(*arguments)
    except (UserError, DataError, OSError, ImportError, MemoryError):  # these do
        raise
    except Exception as error:  # whatever the user's code raises
        raise _wrong(adapter, f"{failing}: {type(error).__name__}: {error}") from error


def _called(adapter: ModelAdapter, failing: str, function: Callable[..., Any], *arguments: Any) -> Any:
    with torch.no_grad():
        return called(adapter, failing, function, *arguments)


def _tied(units: Sequence[Unit], modules: dict[str, nn.Module]) -> list[str]:
    """Layers to prune that share a weight with another layer: each would have zeros of its own in it."""
    owners: dict[int, list[Unit]] = {}
    for unit in units:
        owners.setdefault(id(getattr(modules.get(unit.name, unit), "weight", unit)), []).append(unit)
    shared = (group for group in owners.values() if len(group) > 1 and any(unit.prunable for unit in group))
    return [unit.name for unit in next(shared, [])]


def _in_two_blocks(blocks: Sequence[Block]) -> list[str]:
    """Layers of more than one block: each of those would plan their widths for itself."""
    layers = [name for block in blocks for name in dict.fromkeys(block.layers)]
    return sorted({name for name in layers if layers.count(name) > 1})


def _problem(block: Block, units: dict[str, Unit], modules: dict[str, nn.Module]) -> str | None:
    """What makes a block's widths impossible, None where nothing does."""
    if strange := [name for name in block.layers if name not in units]:
        return f"no unit is called {', '.join(strange)}; units() has every layer that runs"
    for cut in block.cuts:
        inputs = units[cut.consumer].shape[1]
        if cut.count * cut.size != inputs:
            return f"{cut.consumer} reads {inputs} channels, not {cut.count} groups of {cut.size}"
        for name in cut.producers:
            if cut.count * cut.size != units[name].shape[0]:
                return f"{name} writes {units[name].shape[0]} channels, not {cut.count} groups of {cut.size}"
        if grouped := [n for n in (*cut.producers, cut.consumer) if getattr(modules[n], "groups", 1) > 1]:
            return f"{', '.join(grouped)}: a grouped convolution's channels cannot go; leave the block out"
    return None


def _wrong(adapter: ModelAdapter, text: str) -> ConfigError:
    return ConfigError(f"The adapter {adapter.name} does not fit together: {text}.\nSee docs/your-model.md.")

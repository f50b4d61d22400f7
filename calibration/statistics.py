"""Layer statistics: the second moments of every layer's inputs, from which reconstruction errors follow exactly."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from calibration.errors import DataError
from calibration.padding import real_positions, without_padding

CHUNK_BYTES = 32 * 2**20
"""How much of a layer's input is unfolded at a time."""

Layer = nn.Conv2d | nn.Linear
Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]
Progress = Callable[[int, int], None]
"""Told the batches that are done and the batches in all (0 if nobody knows)."""


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """What a layer saw.

    Args:
        hessian: [d_in, d_in] H = 2XXᵀ over all input columns, the second derivative of the squared output error by
            any row of the weight matrix (Hassibi & Stork 1993; Frantar & Alistarh 2022, OBC). Columns of X are in
            the order of ``weight.flatten(1)``. Grouped convolutions have one for every group, [groups, d_in, d_in].
        samples: number of network inputs behind it.
        columns: [n, d_in] some columns of X, where they were asked for; none of grouped convolutions.
    """

    hessian: NDArray[np.float64]
    samples: int
    columns: NDArray[np.float32] | None = None


def collect_statistics(
    model: nn.Module,
    names: Sequence[str],
    batches: Iterable[Tensor],
    memory_bytes: int = 4 * 2**30,
    progress: Progress | None = None,
    columns_a_batch: int = 0,
) -> Iterator[tuple[str, LayerStatistics]]:
    """Statistics of the named layers' inputs, in the order of ``names``.

    One pass over the data serves as many layers as have room for their Hessians, all of them if they fit. Positions
    that hold only padding are left out, where the model is a `calibration.padding.PaddedNetwork`.

    Args:
        model: run in eval mode; unchanged afterwards.
        names: modules of the kinds `nn.Conv2d` and `nn.Linear`.
        batches: network inputs [n, ...]; gone through once a pass, so no mere iterator if several are needed.
        memory_bytes: for Hessians at a time; a single layer may exceed it.
        progress: called after every batch.
        columns_a_batch: how many columns of X to keep of every batch.

    Raises:
        ValueError: a module is of another kind, or several passes are needed and ``batches`` can be read but once.
        DataError: there is no batch, a layer was not reached, or its inputs hold NaN or infinity.
    """
    padding = _Padding(model)
    moments = [_Moments(name, _layer(model, name), padding, columns_a_batch) for name in names]
    passes = _passes(moments, memory_bytes)
    if len(passes) > 1 and iter(batches) is batches:
        raise ValueError(f"{len(passes)} passes over the data are needed, which an iterator cannot give: pass a list")
    total = len(passes) * len(batches) if isinstance(batches, Sized) else 0
    done = 0
    for group in passes:
        for _ in _run(model, [(model, padding.hook), *((layer.layer, layer.hook) for layer in group)], batches):
            done += 1
            if progress:
                progress(done, total)
        while group:
            finished = group.pop(0)
            yield finished.name, finished.statistics()


def capture_inputs(model: nn.Module, name: str, batches: Iterable[Tensor]) -> Tensor:
    """All inputs of one layer [n, ...], as it saw them; where the network pads samples, the real rows [rows, d].

    Args:
        model: run in eval mode; unchanged afterwards.
        name: the layer's module.
        batches: network inputs [n, ...].

    Raises:
        DataError: there is no batch or the layer was not reached.
    """
    captured: list[Tensor] = []
    padding = _Padding(model)

    def keep(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        captured.append(without_padding(inputs[0], padding.real).clone())

    for _ in _run(model, [(model, padding.hook), (model.get_submodule(name), keep)], batches):
        pass
    if not captured:
        raise DataError(f"Layer {name} saw no data: the network never runs it, or there is no batch")
    return torch.cat(captured)


def patches(layer: Layer, inputs: Tensor) -> Iterator[Tensor]:
    """Columns of the matrix X that the layer's weight matrix multiplies, a memory-bounded chunk at a time.

    Args:
        layer: whose kernel, stride, padding, dilation and groups shape the columns.
        inputs: [n, ...] as the layer gets them.

    Yields:
        [groups, columns, d_in], d_in being in the order (kernel height, kernel width, channel).
    """
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(-1, layer.in_features)
        yield from (chunk[None] for chunk in _chunks(rows, layer.in_features))
        return
    images = _padded(layer, inputs)
    yield from (_windows(layer, chunk) for chunk in _chunks(images, _columns_size(layer, images)))


def columns_of_weight(layer: Layer) -> NDArray[np.int64]:
    """[d_in] where the columns of `patches` stand for the columns of ``weight.flatten(1)``."""
    order = np.arange(layer.weight[0].numel())
    if isinstance(layer, nn.Linear):
        return order
    return order.reshape(-1, layer.in_channels // layer.groups).T.ravel()


class _Padding:
    """Which positions of the batch that runs are real, found by the network's forward hook."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.real: Tensor | None = None

    def hook(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Look at one batch."""
        self.real = real_positions(self.model, inputs[0])


class _Moments:
    """Sums of XXᵀ of one layer, filled by its forward hook."""

    def __init__(self, name: str, layer: Layer, padding: _Padding, columns_a_batch: int):
        self.name = name
        self.layer = layer
        self.padding = padding
        self.columns_a_batch = columns_a_batch
        self.samples = 0
        groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        self.shape = (groups, layer.weight[0].numel(), layer.weight[0].numel())
        self._sum: Tensor | None = None
        self._columns: list[Tensor] = []

    def hook(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Add one batch: products in the data's precision a chunk, sums of chunks in float64."""
        if self._sum is None:
            self._sum = torch.zeros(self.shape, dtype=torch.float64)
        batch = without_padding(inputs[0].detach(), self.padding.real)
        batch = batch if batch.dtype == torch.float64 else batch.float()
        for number, chunk in enumerate(patches(self.layer, batch)):
            self._sum += torch.bmm(chunk.transpose(1, 2), chunk)
            if number == 0 and len(chunk) == 1 and self.columns_a_batch:
                spread = torch.linspace(0, chunk.shape[1] - 1, self.columns_a_batch).long()
                self._columns.append(chunk[0, spread].float())
        if not bool(torch.isfinite(self._sum).all()):
            raise DataError(f"The inputs of layer {self.name} hold NaN or infinity: check the data and the weights")
        self.samples += len(inputs[0])

    def statistics(self) -> LayerStatistics:
        """H = 2XXᵀ with columns in the weight's order."""
        if self._sum is None:
            raise DataError(f"Layer {self.name} saw no data: the network never runs it, or there is no batch")
        channels_last = columns_of_weight(self.layer)
        hessian = 2 * self._sum.numpy()[:, channels_last[:, None], channels_last]
        columns = torch.cat(self._columns).numpy()[:, channels_last] if self._columns else None
        return LayerStatistics(hessian[0] if len(hessian) == 1 else hessian, self.samples, columns)


def _layer(model: nn.Module, name: str) -> Layer:
    layer = model.get_submodule(name)
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise ValueError(f"{name} is a {type(layer).__name__}: statistics need a convolution or linear layer")
    return layer


def _passes(moments: Sequence[_Moments], memory_bytes: int) -> list[list[_Moments]]:
    """Consecutive layers whose Hessians fit into memory together."""
    passes: list[list[_Moments]] = []
    free = 0
    for layer in moments:
        needed = 8 * int(np.prod(layer.shape))
        if not passes or needed > free:
            passes.append([])
            free = memory_bytes
        passes[-1].append(layer)
        free -= needed
    return passes


def _run(model: nn.Module, hooks: Iterable[tuple[nn.Module, Hook]], batches: Iterable[Tensor]) -> Iterator[None]:
    """Run the model over the batches, a step a batch, then take the hooks off and put its modes back."""
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for batch in batches:
            with torch.no_grad():
                model(batch)
            yield
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training


def _chunks(rows: Tensor, row_size: int) -> Iterator[Tensor]:
    """Parts of ``rows``, each of which makes at most CHUNK_BYTES of columns, ``row_size`` numbers a row."""
    step = max(1, CHUNK_BYTES // (rows.element_size() * row_size))
    return (rows[start : start + step] for start in range(0, len(rows), step))


def _padded(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Inputs as channels-last images [n, height, width, channels] with the layer's padding around them."""
    if layer.padding == "same":
        spans = [dilation * (kernel - 1) for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
        sides = [(span // 2, span - span // 2) for span in spans]
    elif layer.padding == "valid":
        sides = [(0, 0), (0, 0)]
    else:
        sides = [(int(side), int(side)) for side in layer.padding]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(inputs, (*sides[1], *sides[0]), mode=mode).permute(0, 2, 3, 1).contiguous()


def _positions(layer: nn.Conv2d, images: Tensor) -> list[int]:
    """Height and width of the layer's output for padded images [n, height, width, channels]."""
    shapes = zip(images.shape[1:3], layer.kernel_size, layer.stride, layer.dilation, strict=True)
    return [(extent - dilation * (kernel - 1) - 1) // stride + 1 for extent, kernel, stride, dilation in shapes]


def _columns_size(layer: nn.Conv2d, images: Tensor) -> int:
    """How many numbers one image's columns hold."""
    return int(np.prod(_positions(layer, images))) * layer.weight[0].numel() * layer.groups


def _windows(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """[groups, columns, d_in] of padded channels-last images; the copy moves whole runs of channels."""
    (height, width), (stride_y, stride_x), (dilation_y, dilation_x) = (
        _positions(layer, images),
        layer.stride,
        layer.dilation,
    )
    channels = layer.in_channels // layer.groups
    by_image, by_row, by_column, _ = images.stride()
    view = images.as_strided(
        (layer.groups, len(images), height, width, *layer.kernel_size, channels),
        (channels, by_image, by_row * stride_y, by_column * stride_x, by_row * dilation_y, by_column * dilation_x, 1),
        images.storage_offset(),
    )
    return view.reshape(layer.groups, -1, layer.weight[0].numel())

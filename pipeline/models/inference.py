"""Running networks in torch: arrays in, arrays out, in the arithmetic that this CPU is fastest in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration.finite import require_finite
from pipeline.models.base import Feeds, Predict


def single_feed(inputs: NDArray[Any]) -> Feeds:
    """Samples as they are, for a network that takes them so."""
    return {"input": inputs}


def torch_predict(
    model: nn.Module, feeds: Callable[[NDArray[Any]], Feeds] = single_feed, batch_size: int = 256
) -> Predict:
    """A deployed network as a function of samples [n, …], in eval mode and float32, ``batch_size`` of them at a time.

    It raises `calibration.errors.DataError` for samples that hold NaN or infinity.

    Args:
        model: takes what ``feeds`` makes of samples.
    """

    def predict(inputs: NDArray[Any]) -> NDArray[np.float32]:
        require_finite(inputs, "held-out")
        model.eval()
        outputs = []
        with torch.no_grad():
            for start in range(0, len(inputs), batch_size):
                arrays = feeds(inputs[start : start + batch_size]).values()
                outputs.append(model(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)))
        return torch.cat(outputs).float().numpy()

    return predict


def fast_autocast(device: str = "cpu") -> torch.autocast:
    """Autocast to bfloat16 where ``device`` computes in it natively, and one that changes nothing elsewhere."""
    return torch.autocast(device, torch.bfloat16, enabled=_has_bfloat16(device))


@contextmanager
def channels_last(*models: nn.Module) -> Iterator[None]:
    """Convolution weights of ``models`` in the memory format that trains fastest, and in the usual one afterwards."""
    try:
        for model in models:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        yield
    finally:
        for model in models:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def in_channels_last(inputs: Tensor) -> Tensor:
    """Images [n, channels, h, w] in the same format; other inputs as they are."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs


def _has_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if device == "cpu" else {}
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))

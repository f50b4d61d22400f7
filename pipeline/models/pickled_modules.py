"""The tensors in a checkpoint that is a pickle of a whole module, as the official YOLOv5 ones are.

Such a pickle names classes and functions for the reader to import and call. Here, every name that is not one of
torch's own ways to store a tensor stands for `_Inert`, which takes anything and does nothing, and torch's weights-only
reader refuses what is still left. Neither code of the checkpoint nor the code that it was saved with is needed or run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from targets.errors import ArtifactError, ConfigError

MAX_DEPTH = 64
"""Modules inside modules, more of which can only be a loop."""


def holds_objects(path: Path) -> bool:
    """Whether a file is a PyTorch checkpoint that names classes or functions besides tensors; nothing of it is run."""
    try:
        return bool(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # torch raises many kinds on what is no checkpoint
        return False


def read_module(path: Path) -> dict[str, Tensor]:
    """The named parameters and buffers of the module in a PyTorch file; its moving average where it has one.

    Args:
        path: zip-format file that holds a module, or one under ``ema`` or ``model``.

    Raises:
        ConfigError: the file cannot be read.
        ArtifactError: it is corrupt, tries more than to store tensors and objects, or holds no module.
    """
    content = _read_inertly(path)
    candidates = [content.get("ema"), content.get("model")] if isinstance(content, dict) else [content]
    for module in candidates:
        if isinstance(module, _Inert):
            weights = dict(_tensors(module, path))
            if weights:
                return weights
    raise ArtifactError(f"{path} holds no network: give the .pt file of a trained one, or its state_dict.")


class _Inert:
    """Stands for any class or function that a pickle names; remembers the state of an object and nothing else."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def _read_inertly(path: Path) -> Any:
    try:
        with safe_globals([(_Inert, name) for name in get_unsafe_globals_in_checkpoint(path)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, PermissionError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    except Exception as error:  # torch raises many kinds on damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtifactError(
            f"{path} is damaged, or does more than to store a network, and is refused ({reason}). Fetch it again, "
            "or save the tensors alone where it comes from: torch.save(model.state_dict(), 'weights.pt')."
        ) from error


def _tensors(module: _Inert, path: Path, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as ``module.state_dict()`` would give them."""
    if depth > MAX_DEPTH:
        raise ArtifactError(f"{path} holds modules within themselves; the checkpoint is not usable.")
    for kind in ("_parameters", "_buffers"):
        for name, tensor in _entries(module, kind):
            if isinstance(tensor, Tensor):
                yield prefix + name, tensor.detach()
    for name, child in _entries(module, "_modules"):
        if isinstance(child, _Inert):
            yield from _tensors(child, path, f"{prefix}{name}.", depth + 1)


def _entries(module: _Inert, kind: str) -> Iterator[tuple[str, Any]]:
    entries = getattr(module, "state", {}).get(kind)
    yield from entries.items() if isinstance(entries, dict) else ()

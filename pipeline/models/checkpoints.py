"""Weights from files, without running what is in them."""

import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from targets.errors import ArtifactError, ConfigError
from targets.files import write_atomically

_TORCH_SUFFIXES = (".pt", ".pth", ".th", ".tar")
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def read_weights(path: Path | None) -> dict[str, Tensor]:
    """The named tensors of a ``.safetensors`` or PyTorch file, floating-point ones as float32.

    A training checkpoint may hold them under ``state_dict`` or ``model``, and ``DataParallel`` may have put
    ``module.`` before the names.

    Raises:
        ConfigError: no file was given, there is none, or it is of another kind.
        ArtifactError: the file is corrupt, holds pickled classes, no named tensors, or values that are not finite.
    """
    if path is None:
        raise ConfigError("This model needs trained weights: give --weights a .safetensors, .pt or .pth file.")
    if not path.is_file():
        raise ConfigError(f"No weights at {path}: give --weights a .safetensors, .pt or .pth file.")
    if path.suffix == ".safetensors":
        weights = _read_safetensors(path)
    elif path.suffix in _TORCH_SUFFIXES:
        weights = _named_tensors(_read_torch(path), path)
    else:
        raise ConfigError(f"{path} is not a kind of weights file that is read here: use .safetensors, .pt or .pth.")
    return usable(weights, path)


def usable(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors that were read from ``path``, floating-point ones as float32.

    Raises:
        ArtifactError: one holds values that are not finite.
    """
    weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(f"{path}: tensor {name} holds NaN or infinite values; the checkpoint is not usable.")
    return weights


def write_weights(weights: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``weights`` as safetensors, to a temporary name first, so that ``path`` is whole or absent."""
    from safetensors.torch import save

    # Copies, since safetensors refuses tensors that share memory, as tied weights do.
    copies = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in weights.items()}
    content = save(copies, dict(metadata or {}))
    write_atomically(path, content)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], source: str, fits: Sequence[str] = ()) -> None:
    """Put ``weights`` into ``model``; batch norms' counters of batches may be absent.

    Args:
        model: network that takes them, in place.
        weights: tensor of every parameter and buffer, by name.
        source: where the weights come from, for the message.
        fits: names of the models whose tensors these are, for the message.

    Raises:
        ArtifactError: they are of another architecture; lists what differs.
    """
    found = differences(model, weights)
    if found:
        remedy = f"These weights fit --model {fits[0]}." if fits else "Give --model the architecture that they are of."
        raise ArtifactError(f"{source} holds weights of another architecture: {'; '.join(found)}. {remedy}")
    model.load_state_dict(dict(weights), strict=False)


def differences(model: nn.Module, weights: Mapping[str, Tensor], shown: int = 3) -> list[str]:
    """What keeps ``weights`` from being those of ``model``, the first few of each kind; empty if they are."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = [name for name in expected if name not in weights and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in weights if name not in expected]
    shaped = [
        f"{name} {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shaped}
    return [
        f"{len(names)} {kind} ({', '.join(names[:shown])}{', …' if len(names) > shown else ''})"
        for kind, names in kinds.items()
        if names
    ]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ArtifactError(f"{path} is not a whole safetensors file ({error}); fetch or write it again.") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch remarks on pickle protocols, which changes nothing here
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error
    except pickle.UnpicklingError as error:
        if "Unsupported" not in str(error) and "GLOBAL" not in str(error):
            raise ArtifactError(f"{path} is not a whole PyTorch file; fetch or write it again.") from error
        raise ArtifactError(
            f"{path} holds pickled Python objects, which could run code when loaded, and is refused. Save the tensors "
            "alone where the file comes from: torch.save(model.state_dict(), 'weights.pt'), or as safetensors."
        ) from error
    except Exception as error:  # torch raises many kinds on damaged files
        raise ArtifactError(f"{path} is not a whole PyTorch file; fetch or write it again.") from error


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ArtifactError(f"{path} holds no named tensors: save model.state_dict() there.")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}

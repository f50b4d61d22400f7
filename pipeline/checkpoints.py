"""A run's networks as files."""

from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn


def save_network(network: nn.Module, path: Path) -> None:
    """Write a network's weights, whole or not at all; `pipeline.context.Run.network` reads them."""
    state: dict[str, Tensor] = {key: value.contiguous() for key, value in network.state_dict().items()}
    part = path.with_name(path.name + ".part")
    save_file(state, part)
    part.replace(path)

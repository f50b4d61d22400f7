"""A run's networks as files."""

from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.context import Run


def save_network(run: Run, network: nn.Module, name: str) -> None:
    """Write a network's weights into the run folder, whole or not at all; `Run.network` reads them."""
    state: dict[str, Tensor] = {key: value.contiguous() for key, value in network.state_dict().items()}
    path = run.folder.file(name)
    part = path.with_name(path.name + ".part")
    save_file(state, part)
    part.replace(path)

"""What brings accuracy back once weights are gone: output matching, and gradual pruning when epochs are allowed."""

from collections.abc import Mapping

from pipeline.context import Run
from targets.levels import Level

BATCH = 128


def recover(run: Run, plan: Mapping[str, Level], key: str) -> None:
    """Correct the stitched plan → corrected.safetensors; prune gradually if asked → checkpoint.safetensors."""
    network = corrected_network(run, plan)
    save_network(run, network, "corrected.safetensors")
    if run.config.epochs:
        network = trained_network(run, plan, network, key)
    save_network(run, network, "checkpoint.safetensors")

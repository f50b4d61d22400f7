"""A small trained network with its database, for tests of candidate plans."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from calibration.statistics import collect_statistics
from pipeline.backends.workers import Compute, compute_here
from pipeline.compression.database import Database, build_database
from pipeline.models.base import Unit
from pipeline.planning.evaluation import CandidateLosses, Candidates, outputs_of
from pipeline.run_folder import Log
from targets.levels import sparsity_grid
from tests.training.networks import ADAPTER, BLOCKS, DATA, UNITS, dense_network

LEVELS = sparsity_grid(count=4)
BATCH = 32


def inputs(count: int = 128) -> Tensor:
    """The first calibration samples."""
    return torch.from_numpy(DATA.train.inputs(np.arange(count)))


def units() -> tuple[Unit, ...]:
    """The six units of the network's blocks."""
    model = dense_network()
    shapes = {name: tuple(model.get_submodule(name).get_parameter("weight").shape) for name in UNITS}
    return tuple(Unit(name, "conv", (name,), shape, name, True) for name, shape in shapes.items())


def database(folder: Path, compute: Compute = compute_here) -> Database:
    """Of all units."""
    model = dense_network()
    statistics = collect_statistics(model, UNITS, [inputs()])
    return build_database(units(), model.state_dict(), statistics, LEVELS, folder, compute=compute)


def candidates(built: Database, network: nn.Module | None = None) -> Candidates:
    """Judged by four batches."""
    return Candidates(
        network or dense_network(),
        built.folder,
        units(),
        LEVELS,
        tuple(BLOCKS),
        inputs(),
        outputs_of(dense_network(), inputs(), BATCH),
        ADAPTER.calibration_loss,
        BATCH,
    )


def candidate_losses(built: Database, log: Path, network: nn.Module | None = None) -> CandidateLosses:
    """In this process."""
    return CandidateLosses(candidates(built, network), Log(log, "key"))

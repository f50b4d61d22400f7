from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from calibration.statistics import LayerStatistics, collect_statistics
from pipeline.compression.database import Database, build_database
from pipeline.models.base import Unit
from targets.levels import Level, sparsity_grid

LEVELS = sparsity_grid(count=6)


class Job:
    """A small network, its units and its statistics, ready for a database."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(128, 7),
        ).eval()
        self.units = [
            Unit(f"unit {name}", kind, (name,), tuple(self.model.get_submodule(name).weight.shape), name, True)
            for name, kind in (("0", "conv"), ("2", "conv"), ("5", "linear"))
        ]
        self.statistics: list[tuple[str, LayerStatistics]] = list(
            collect_statistics(self.model, ["0", "2", "5"], [torch.randn(300, 3, 6, 6)])
        )

    def build(self, folder: Path, **changes: object) -> Database:
        settings = {
            "units": self.units,
            "weights": self.model.state_dict(),
            "statistics": self.statistics,
            "levels": LEVELS,
            "folder": folder,
        }
        return build_database(**(settings | changes))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small layers gain nothing from threads, and lose much where other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def job() -> Job:
    return Job()


@pytest.fixture
def levels() -> tuple[Level, ...]:
    return LEVELS


@pytest.fixture
def database(job: Job, tmp_path: Path) -> Database:
    return job.build(tmp_path / "database")

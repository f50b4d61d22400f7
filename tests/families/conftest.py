"""A small residual network with its exported graph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.exporting.export import PlanPatcher, export_onnx
from pipeline.families.ranges import largest_weight, measure_ranges
from pipeline.families.registry import units_of
from pipeline.models.base import Unit
from pipeline.models.resnet import Bottleneck, CifarResNet, ImageNetResNet, residual_widths
from pipeline.models.tracing import trace_units
from targets.host import isa_features

BATCH = 4
LARGEST = largest_weight(isa_features())
"""Steps of a weight that this CPU multiplies without overflow."""


@dataclass(frozen=True)
class Exported:
    """A network, the units that a run would have, and its file."""

    network: nn.Module
    units: list[Unit]
    path: Path
    inputs: NDArray[np.float32]

    def outputs(self, path: Path) -> NDArray[np.float32]:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return session.run(None, {"input": self.inputs})[0]

    def patcher(self) -> PlanPatcher:
        layers = [layer.name for unit in self.units for layer in unit.layers]
        return PlanPatcher(self.path, self.units, measure_ranges(self.path, layers, [{"input": self.inputs}], LARGEST))


def _exported(network: nn.Module, size: int, last: str, folder: Path) -> Exported:
    inputs = np.random.default_rng(0).standard_normal((BATCH, 3, size, size)).astype(np.float32)
    with torch.no_grad():  # statistics of its own inputs: else activations vanish or explode
        network.train()
        for _ in range(20):
            network(torch.from_numpy(inputs))
    layers = trace_units(network.eval(), torch.from_numpy(inputs[:1]), dense=("conv1", last))
    path = folder / "dense.onnx"
    export_onnx(network, {"input": inputs}, path)
    return Exported(network, units_of(layers, residual_widths(network), ("channel", "int8")), path, inputs)


@pytest.fixture(scope="session")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Three blocks of two convolutions: 16, 32 and 64 middle channels."""
    torch.manual_seed(0)
    return _exported(CifarResNet(1, 16, 5, 3), 12, "linear", tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="session")
def bottlenecks(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Four blocks of three convolutions, with two widths each."""
    torch.manual_seed(0)
    network = ImageNetResNet(Bottleneck, (1, 1, 1, 1), 5, 3)
    return _exported(network, 32, "fc", tmp_path_factory.mktemp("bottlenecks"))

"""A small trained network and its pruned copy."""

import copy
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.registry import get_adapter
from pipeline.models.resnet import CifarResNet
from pipeline.training.masks import apply_masks, magnitude_mask
from tests.models.splits import stripes

ADAPTER = get_adapter("resnet:20")
DATA = stripes()
BLOCKS = ["layer1.0", "layer2.0", "layer3.0"]
UNITS = [f"{block}.conv{i}" for block in BLOCKS for i in (1, 2)]


@cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    model = CifarResNet(1, 8, 4, 1).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    inputs, labels = torch.from_numpy(DATA.train.inputs(np.arange(256))), torch.from_numpy(DATA.train.labels)
    for step in range(40):
        rows = torch.arange(64) + 64 * (step % 4)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
        optimizer.step()
    return model.eval()


def dense_network() -> nn.Module:
    """A fresh copy of a network that has learnt the stripes."""
    return copy.deepcopy(_trained())


def with_dropout(model: nn.Module) -> nn.Module:
    """The same network, whose second block sees a tenth of its inputs as zeros while it trains."""

    def drop(module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return nn.functional.dropout(inputs[0], 0.1, module.training)

    model.get_submodule(BLOCKS[1]).register_forward_pre_hook(drop)
    return model


def pruned_network(amount: float) -> tuple[nn.Module, dict[str, Tensor]]:
    """The same with every unit pruned by magnitude, and the masks."""
    model = dense_network()
    masks = {unit: magnitude_mask(model.get_parameter(f"{unit}.weight"), amount) for unit in UNITS}
    apply_masks(model, masks)
    return model, masks

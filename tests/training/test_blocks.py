"""Blocks are compared with the dense network's, without what is padding."""

import pytest
import torch
from torch import nn

from pipeline.training.blocks import block_error, captured


def test_outputs_of_blocks_are_captured_while_the_network_runs():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with captured(model, ["0", "1"]) as outputs:
        x = torch.randn(5, 3)
        model(x)
        assert torch.equal(outputs["0"], model[0](x))
        assert torch.equal(outputs["1"], model[0](x).relu())
    assert not model[0]._forward_hooks


def test_the_error_is_relative_to_each_block_and_leaves_padding_out():
    dense = {"a": torch.full((2, 3, 4), 10.0), "b": torch.full((2, 4), 0.1)}
    ours = {"a": dense["a"].clone(), "b": dense["b"] * 1.1}
    ours["a"][1, 2] = 1e6
    ours["a"][0, 0] = 20
    real = torch.tensor([[True, True, True], [True, True, False]])
    assert block_error(ours, dense, real).item() == pytest.approx(1 / 5 + 0.01, rel=1e-4)
    assert block_error(ours, dense, None).item() > 1e6
    assert block_error(dense, dense, None).item() == 0
    assert block_error({}, {}, None).item() == 0

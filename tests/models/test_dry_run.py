"""An adapter whose methods do not fit together is refused at once, by the method's name."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from calibration.datasets import Split, Splits, load_splits
from pipeline.models.base import Block, Cut, Unit
from pipeline.models.checkpoints import read_weights
from pipeline.models.dry_run import called, check_data, try_out, try_training
from targets.errors import ConfigError
from tests.training.networks import ADAPTER, DATA, dense_network

SAMPLES = DATA.train.inputs(np.arange(2))


def adapter(**changes: Any) -> Any:
    """The ResNets' with some methods replaced."""
    kept = ("name", "calibration_loss", "blocks", "units", "widths", "deployed", "feeds")
    return SimpleNamespace(**{name: getattr(ADAPTER, name) for name in kept} | changes)


class Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise IndexError("no such head")


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def test_what_fits_together_passes() -> None:
    try_out(adapter(), dense_network(), SAMPLES)
    try_out(adapter(blocks=lambda _: [], widths=lambda _: []), dense_network(), SAMPLES[:1])


def first_width() -> Block:
    return ADAPTER.widths(dense_network())[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"calibration_loss": lambda ours, dense: (ours - dense).square().mean()},
            r"calibration_loss\(\) gives the shape \[\]",
        ),
        ({"blocks": lambda _: ["layer9"]}, r"blocks\(\) names modules that the network has not: layer9"),
        ({"widths": lambda _: [Block("b", (Cut(("nowhere",), "fc", 8),))]}, "no unit is called nowhere, fc"),
        ({"deployed": lambda network: nn.Sequential(network)}, "does not hold the network as its attribute `network`"),
        ({"feeds": lambda samples: {"x": samples.astype(np.float64)}}, r"feeds\(\) gives float64 for x"),
        ({"feeds": lambda samples: {"x": samples[:, :, :4, :4], "y": samples}}, "the network fails on 2 training"),
        ({"widths": lambda _: [with_count(5)]}, "reads [0-9]+ channels, not 5 groups of 1"),
        ({"widths": lambda _: [written_by("linear")]}, "linear writes [0-9]+ channels, not [0-9]+ groups of 1"),
        ({"widths": lambda _: [first_width(), replace(first_width(), name="again")]}, "in two blocks: put the cuts"),
        ({"widths": lambda _: failing()}, r"widths\(\) fails: IndexError: no such class"),
        ({"units": lambda *_: failing()}, r"units\(\) fails: IndexError: no such class"),
    ],
)
def test_what_does_not_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        try_out(adapter(**changes), dense_network(), SAMPLES)


def test_layers_that_share_their_weights_are_refused_unless_both_stay_dense() -> None:
    network = dense_network()
    network.get_submodule("layer1.0.conv2").weight = network.get_parameter("layer1.0.conv1.weight")
    with pytest.raises(ConfigError, match=r"layer1.0.conv1 and layer1.0.conv2 share their weights"):
        try_out(adapter(), network, SAMPLES)

    def all_dense(model: nn.Module, one: torch.Tensor) -> list[Unit]:
        return [replace(unit, prunable=False) for unit in ADAPTER.units(model, one)]

    try_out(adapter(units=all_dense), network, SAMPLES)


def failing(*_: Any) -> torch.Tensor:
    raise IndexError("no such class")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"training_loss": failing}, r"training_loss\(\) fails: IndexError: no such class"),
        ({"training_loss": lambda outputs, *_: outputs}, r"training_loss\(\) gives the shape .*one finite number"),
        ({"training_loss": lambda outputs, *_: outputs.sum() * np.nan}, r"gives nan: it must be one finite number"),
        ({"training_score": failing}, r"training_score\(\) fails: IndexError"),
        ({"training_score": lambda outputs, _: outputs}, r"training_score\(\) gives the shape .* for 2 labels: \[n\]"),
        ({"training_score": lambda *_: 1.0}, r"training_score\(\) gives float for 2 labels"),
    ],
)
def test_what_training_would_stumble_over_is_named(changes: dict[str, Any], words: str) -> None:
    batch = DATA.train.batch(np.arange(2), np.random.default_rng(0))
    right = {name: getattr(ADAPTER, name) for name in ("training_loss", "training_score")}
    try_training(adapter(**right), dense_network(), batch)
    with pytest.raises(ConfigError, match=words):
        try_training(adapter(**right | changes), dense_network(), batch)


def test_what_an_adapter_stumbles_over_is_said_with_its_method_and_what_explains_itself_passes() -> None:
    with pytest.raises(ConfigError, match=r"load_data\(\) fails: IndexError: no such class.\nSee docs/your-model.md"):
        called(adapter(), "load_data() fails", failing)
    with pytest.raises(ConfigError, match=r"^This model needs trained weights: give --weights"):
        called(adapter(), "load() fails", read_weights, None)
    with pytest.raises(FileNotFoundError):
        called(adapter(), "load_data() fails", open, "nowhere")


def with_count(count: int) -> Block:
    block = first_width()
    return replace(block, cuts=(replace(block.cuts[0], count=count),))


def written_by(layer: str) -> Block:
    block = first_width()
    return replace(block, cuts=(replace(block.cuts[0], producers=(layer,)),))


def test_a_width_of_grouped_convolutions_is_refused() -> None:
    network = dense_network()
    cut = first_width().cuts[0]
    parent, _, name = cut.producers[0].rpartition(".")
    module = network.get_submodule(cut.producers[0])
    grouped = nn.Conv2d(module.in_channels, module.out_channels, 3, module.stride, padding=1, groups=2, bias=False)
    setattr(network.get_submodule(parent), name, grouped)
    with pytest.raises(ConfigError, match=r"conv1: a grouped convolution"):
        try_out(adapter(), network, SAMPLES)


@pytest.mark.parametrize(
    ("network", "words"), [(Broken(), "IndexError: no such head"), (Pair(), "gives tuple for 2 samples")]
)
def test_a_network_that_fails_or_gives_something_else(network: nn.Module, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        try_out(adapter(), network, SAMPLES)


def test_double_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="give float32"):
        try_out(adapter(), dense_network(), SAMPLES.astype(np.float64))


def test_a_part_called_as_the_deployed_forms_is_refused() -> None:
    network = dense_network()
    network.add_module("network", nn.Identity())
    with pytest.raises(ConfigError, match="has a part called `network`"):
        try_out(adapter(), network, SAMPLES)


def test_data_that_lack_something_are_refused_by_its_name() -> None:
    whole = load_splits(None)
    check_data(adapter(), whole)

    class Own:
        labels = strata = np.zeros(3)

        def __len__(self) -> int:
            return 3

    with pytest.raises(ConfigError, match=r"Own, its test data, lacks .*preprocessing.*inputs.*truth.*ArraySplit"):
        check_data(adapter(), Splits("own", whole.train, cast(Split, Own())))


def test_what_data_inherit_from_the_protocol_is_missing() -> None:
    whole = load_splits(None)

    class Own(Split):
        classes, input_shape, preprocessing = (), (1, 8, 8), None
        labels = strata = np.zeros(3)

        def __len__(self) -> int:
            return 3

    with pytest.raises(ConfigError, match=r"Own, its test data, lacks inputs, batch, digest, draw, truth"):
        check_data(adapter(), Splits("own", whole.train, Own()))  # type: ignore[abstract]

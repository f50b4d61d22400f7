"""The networks have the names, sizes and numbers of the published ones."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from calibration.datasets import load_splits
from pipeline.models.classifiers import load_cifar_resnet
from pipeline.models.inference import torch_predict
from pipeline.models.registry import get_adapter
from pipeline.models.resnet import VARIANTS, SelectChannels

DATA = os.environ.get("SPDY_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="SPDY_DATA is not set")


def _checkpoint() -> Path:
    return Path(DATA or "") / "resnet" / "resnet20_cifar10.safetensors"


def _parameters(name: str, classes: int) -> int:
    with torch.device("meta"):
        model = VARIANTS[name].build(classes, 3)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("resnet:18", 11_689_512), ("resnet:34", 21_797_672), ("resnet:50", 25_557_032), ("resnet:101", 44_549_160)],
)
def test_imagenet_variants_have_torchvisions_number_of_parameters(name, parameters):
    assert _parameters(name, 1000) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet:20", 269_722),
        ("resnet:32", 464_154),
        ("resnet:44", 658_586),
        ("resnet:56", 853_018),
        ("resnet:110", 1_727_962),
    ],
)
def test_cifar_variants_have_the_published_number_of_parameters(name, parameters):
    assert _parameters(name, 10) == parameters


def test_resnet50_has_torchvisions_names():
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in VARIANTS["resnet:50"].build(1000, 3).state_dict().items()}
    expected = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 2048), "fc.bias": (1000,)}
    norms = ["bn1"]
    widths, inputs = (64, 128, 256, 512), 64
    for stage, (width, count) in enumerate(zip(widths, (3, 4, 6, 3), strict=True), start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            expected[f"{prefix}.conv1.weight"] = (width, inputs, 1, 1)
            expected[f"{prefix}.conv2.weight"] = (width, width, 3, 3)
            expected[f"{prefix}.conv3.weight"] = (4 * width, width, 1, 1)
            norms += [f"{prefix}.bn{i}" for i in (1, 2, 3)]
            if block == 0:
                expected[f"{prefix}.downsample.0.weight"] = (4 * width, inputs, 1, 1)
                norms.append(f"{prefix}.downsample.1")
            inputs = 4 * width
    buffers = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert set(shapes) == set(expected) | {f"{norm}.{buffer}" for norm in norms for buffer in buffers}
    assert {name: shapes[name] for name in expected} == expected


@pytest.mark.parametrize(("channels_in", "channels_out", "stride"), [(16, 32, 2), (4, 8, 1), (3, 6, 2)])
def test_option_a_shortcut_is_slicing_and_padding(channels_in, channels_out, stride):
    x = torch.randn(2, channels_in, 8, 8)
    before = (channels_out - channels_in) // 2
    after = channels_out - channels_in - before
    expected = functional.pad(x[:, :, ::stride, ::stride], (0, 0, 0, 0, before, after))
    assert torch.equal(SelectChannels(channels_in, channels_out, stride)(x), expected)


def test_the_shortcut_is_no_part_of_a_checkpoint():
    assert not [name for name in VARIANTS["resnet:20"].build(10, 3).state_dict() if "shortcut" in name]


def test_imagenet_variants_run_and_follow_the_number_of_classes():
    for name in ("resnet:18", "resnet:50"):
        model = VARIANTS[name].build(7, 3).eval()
        with torch.no_grad():
            assert model(torch.randn(1, 3, 64, 64)).shape == (1, 7)


@needs_data
def test_names_and_shapes_are_those_of_the_published_checkpoint():
    from safetensors.torch import load_file

    weights, model = load_file(_checkpoint()), load_cifar_resnet(20, _checkpoint())
    assert {name: t.shape for name, t in model.state_dict().items()} == {name: t.shape for name, t in weights.items()}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())


@needs_data
@pytest.mark.slow
def test_dense_accuracy_is_the_published_one():
    data, adapter = load_splits(Path(DATA or "") / "cifar10" / "cifar10.zip"), get_adapter("resnet:20")
    score = adapter.evaluate(torch_predict(adapter.load(_checkpoint(), data)), data)
    assert score.value == pytest.approx(0.8796, abs=2e-4)
    assert score.per_sample.shape == (5000,)
    assert score.value == np.mean(score.per_sample)

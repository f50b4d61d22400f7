"""Residual networks: the CIFAR form with option-A shortcuts and the ImageNet form, under their usual names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.models.base import Block, Cut


class SelectChannels(nn.Module):
    """Option A of He et al. (2016): every second pixel, and zeros for the channels that are new.

    It is written as a 1x1 convolution with a fixed selection matrix. Slicing and padding give the same numbers,
    but DeepSparse runs padding in its fallback: that splits the fused convolutions on both sides of it, and made a
    network at 80% sparsity a third slower.

    Args:
        channels_in: channels that come in.
        channels_out: channels that go out; the old ones lie in their middle.
        stride: distance of the pixels that stay.
    """

    selection: Tensor

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        before = (channels_out - channels_in) // 2
        selection = torch.eye(channels_in)
        selection = functional.pad(selection, (0, 0, before, channels_out - channels_in - before))
        self.register_buffer("selection", selection[:, :, None, None], persistent=False)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels_out, h / stride, w / stride]."""
        return functional.conv2d(x, self.selection, stride=self.stride)


def _conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False)


class ResidualBlock(nn.Module):
    """What every residual block has: its output is worth matching when the network inside has been compressed."""


class CifarBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut without parameters."""

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and channels_in == width
        self.shortcut = nn.Identity() if same else SelectChannels(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same, halved where the block has a stride."""
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions and a shortcut that is projected where the shape changes."""

    expansion = 1

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _projection(channels_in, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same, halved where the block has a stride."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 (which carries the stride) and 1x1 convolution, and a shortcut as in `BasicBlock`."""

    expansion = 4

    def __init__(self, channels_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _projection(channels_in, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same, halved where the block has a stride."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


def residual_widths(model: nn.Module) -> list[Block]:
    """Every residual block's middle channels: each convolution's outputs that only the next one reads."""
    blocks = []
    for name, block in model.named_modules():
        if isinstance(block, ResidualBlock):
            convolutions = [f"{name}.{child}" for child, _ in block.named_children() if child.startswith("conv")]
            cuts = (
                Cut((writer,), reader, model.get_submodule(writer).out_channels)  # type: ignore[arg-type]
                for writer, reader in pairwise(convolutions)
            )
            blocks.append(Block(name, tuple(cuts)))
    return blocks


def _projection(channels_in: int, channels_out: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels_out:
        return None
    return nn.Sequential(_conv(channels_in, channels_out, 1, stride), nn.BatchNorm2d(channels_out))


class CifarResNet(nn.Module):
    """Three stages of `CifarBlock` behind one 3x3 convolution; names as in akamaster/pytorch_resnet_cifar10."""

    def __init__(self, blocks: int, width: int, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = _conv(channels, width, 3)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(CifarBlock, width, width, blocks, 1)
        self.layer2 = _stage(CifarBlock, width, 2 * width, blocks, 2)
        self.layer3 = _stage(CifarBlock, 2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to logits [n, classes]."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(functional.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


class ImageNetResNet(nn.Module):
    """Four stages behind a strided 7x7 convolution and a pooling; names as in torchvision."""

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], blocks: Sequence[int], classes: int, channels: int
    ) -> None:
        super().__init__()
        out = block.expansion
        self.conv1 = _conv(channels, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, blocks[0], 1, out)
        self.layer2 = _stage(block, 64 * out, 128, blocks[1], 2, out)
        self.layer3 = _stage(block, 128 * out, 256, blocks[2], 2, out)
        self.layer4 = _stage(block, 256 * out, 512, blocks[3], 2, out)
        self.fc = nn.Linear(512 * out, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, height, width] to logits [n, classes]."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def _stage(
    block: Callable[[int, int, int], nn.Module],
    channels_in: int,
    width: int,
    count: int,
    stride: int,
    expansion: int = 1,
) -> nn.Sequential:
    first = block(channels_in, width, stride)
    return nn.Sequential(first, *(block(width * expansion, width, 1) for _ in range(count - 1)))


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@dataclass(frozen=True, slots=True)
class Variant:
    """One residual network that can be asked for by name.

    Args:
        name: as in ``--model``, such as ``resnet:20``.
        description: one line for people.
        data_format: inputs that it takes.
        build: gives the untrained network for a number of classes and of input channels.
        classifier: name of the last layer.
        embedded: trained on the spot when no weights are given.
    """

    name: str
    description: str
    data_format: str
    build: Callable[[int, int], nn.Module]
    classifier: str
    embedded: bool = False


def _cifar(depth: int) -> Variant:
    return Variant(
        f"resnet:{depth}",
        f"CIFAR ResNet-{depth}, 16-32-64 channels, option-A shortcuts; needs --weights and --data",
        "small images, such as 3x32x32",
        lambda classes, channels: CifarResNet((depth - 2) // 6, 16, classes, channels),
        "linear",
    )


def _imagenet(depth: int, block: type[BasicBlock] | type[Bottleneck], blocks: tuple[int, ...]) -> Variant:
    return Variant(
        f"resnet:{depth}",
        f"ImageNet ResNet-{depth} with torchvision's names; needs --weights and --data",
        "images; the network sees 3x224x224",
        lambda classes, channels: ImageNetResNet(block, blocks, classes, channels),
        "fc",
    )


VARIANTS: dict[str, Variant] = {
    "resnet:digits": Variant(
        "resnet:digits",
        "ResNet-14 of the CIFAR form, 32-64-128 channels; trained on the spot on the embedded digits",
        "grey images, 1x8x8",
        lambda classes, channels: CifarResNet(2, 32, classes, channels),
        "linear",
        embedded=True,
    ),
    "resnet:20": _cifar(20),
    "resnet:32": _cifar(32),
    "resnet:44": _cifar(44),
    "resnet:56": _cifar(56),
    "resnet:110": _cifar(110),
    "resnet:18": _imagenet(18, BasicBlock, (2, 2, 2, 2)),
    "resnet:34": _imagenet(34, BasicBlock, (3, 4, 6, 3)),
    "resnet:50": _imagenet(50, Bottleneck, (3, 4, 6, 3)),
    "resnet:101": _imagenet(101, Bottleneck, (3, 4, 23, 3)),
}

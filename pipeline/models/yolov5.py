"""YOLOv5 in its v6 layout: five sizes of one network, under the names of the published checkpoints."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.scoring.nms import BOX_VALUES

STRIDES = (8, 16, 32)
"""Pixels between the cells of the three grids that boxes are predicted on."""

ANCHORS = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
"""Width and height in pixels of the boxes that predictions start from, three for each grid; fitted to COCO."""


@dataclass(frozen=True, slots=True)
class Size:
    """One of the family's networks.

    Args:
        name: as in ``--model``, such as ``yolov5:n``.
        depth: of the repeated blocks, as a share of the largest published layout.
        width: of the channels, likewise.
        parameters: millions, for COCO's 80 classes.
    """

    name: str
    depth: float
    width: float
    parameters: float

    @property
    def description(self) -> str:
        """One line for people."""
        return f"YOLOv5{self.name[-1]}, v6 layout, {self.parameters} million parameters; needs --weights and --data"

    def channels(self, count: int) -> int:
        """Channels where the layout has ``count``, a multiple of 8."""
        return math.ceil(count * self.width / 8) * 8

    def repeats(self, count: int) -> int:
        """Repetitions where the layout has ``count``."""
        return max(round(count * self.depth), 1)


SIZES: dict[str, Size] = {
    f"yolov5:{letter}": Size(f"yolov5:{letter}", depth, width, parameters)
    for letter, depth, width, parameters in (
        ("n", 0.33, 0.25, 1.9),
        ("s", 0.33, 0.50, 7.2),
        ("m", 0.67, 0.75, 21.2),
        ("l", 1.00, 1.00, 46.5),
        ("x", 1.33, 1.25, 86.7),
    )
}


class Conv(nn.Module):
    """Convolution, batch norm and SiLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, (kernel - 1) // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels_out, eps=1e-3, momentum=0.03)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels_out, h / stride, w / stride]."""
        return functional.silu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
    """1x1 and 3x3 convolution, with a shortcut around both in the backbone."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels)
        self.cv2 = Conv(channels, channels, 3)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same."""
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y  # type: ignore[no-any-return]


class C3(nn.Module):
    """Cross-stage partial block (Wang et al. 2020) of three convolutions: one half is bottlenecks, one goes around."""

    def __init__(self, channels_in: int, channels_out: int, repeats: int, shortcut: bool) -> None:
        super().__init__()
        half = channels_out // 2
        self.cv1 = Conv(channels_in, half)
        self.cv2 = Conv(channels_in, half)
        self.cv3 = Conv(2 * half, channels_out)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels_in, h, w] to [n, channels_out, h, w]."""
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))  # type: ignore[no-any-return]


class SPPF(nn.Module):
    """Spatial pyramid pooling (He et al. 2014): windows of 5, 9 and 13 pixels by pooling three times."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels // 2)
        self.cv2 = Conv(channels // 2 * 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to the same."""
        levels = [self.cv1(x)]
        for _ in range(3):
            levels.append(functional.max_pool2d(levels[-1], 5, 1, 2))
        return self.cv2(torch.cat(levels, 1))  # type: ignore[no-any-return]


class Upsample(nn.Module):
    """Every pixel becomes 2 x 2."""

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, h, w] to [n, channels, 2h, 2w]."""
        return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Concat(nn.Module):
    """Channels of two layers side by side."""

    def forward(self, x: Tensor, earlier: Tensor) -> Tensor:
        """[n, a, h, w] and [n, b, h, w] to [n, a + b, h, w]."""
        return torch.cat([x, earlier], 1)


def coco_anchors() -> Tensor:
    """[grids, anchors, 2] width and height of `ANCHORS` in cells of their grid."""
    return torch.tensor(ANCHORS, dtype=torch.float32) / torch.tensor(STRIDES)[:, None, None]


class Detect(nn.Module):
    """The 1x1 convolutions that predict three boxes for every cell of three grids.

    Args:
        classes: number of classes.
        channels: that come in at each grid, the finest first.
    """

    anchors: Tensor

    def __init__(self, classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("anchors", coco_anchors())
        values = self.anchors.shape[1] * (BOX_VALUES + classes)
        self.m = nn.ModuleList(nn.Conv2d(count, values, 1) for count in channels)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Three maps [n, channels, h, w] to logits [n, anchors, 5 + classes]; rows by grid, anchor, y and x."""
        boxes, rows = self.anchors.shape[1], []
        for convolution, x in zip(self.m, features, strict=True):
            y = convolution(x)
            count, values, height, width = (int(length) for length in y.shape)  # constants in an exported graph
            y = y.reshape(count, boxes, values // boxes, height * width).transpose(2, 3)
            rows.append(y.reshape(count, boxes * height * width, values // boxes))
        return torch.cat(rows, 1)


# Every layer: kind, layers that it reads (-1 is the one before), channels and repeats in the largest layout.
_LAYOUT: tuple[tuple[str, tuple[int, ...], int, int], ...] = (
    ("stem", (-1,), 64, 1),
    ("down", (-1,), 128, 1),
    ("c3", (-1,), 128, 3),
    ("down", (-1,), 256, 1),
    ("c3", (-1,), 256, 6),
    ("down", (-1,), 512, 1),
    ("c3", (-1,), 512, 9),
    ("down", (-1,), 1024, 1),
    ("c3", (-1,), 1024, 3),
    ("sppf", (-1,), 1024, 1),
    ("point", (-1,), 512, 1),
    ("upsample", (-1,), 0, 1),
    ("concat", (-1, 6), 0, 1),
    ("c3 plain", (-1,), 512, 3),
    ("point", (-1,), 256, 1),
    ("upsample", (-1,), 0, 1),
    ("concat", (-1, 4), 0, 1),
    ("c3 plain", (-1,), 256, 3),
    ("down", (-1,), 256, 1),
    ("concat", (-1, 14), 0, 1),
    ("c3 plain", (-1,), 512, 3),
    ("down", (-1,), 512, 1),
    ("concat", (-1, 10), 0, 1),
    ("c3 plain", (-1,), 1024, 3),
)
_DETECTED = (17, 20, 23)
"""Layers whose outputs the detection layer reads."""

FIRST = "model.0.conv"
PREDICTING = tuple(f"model.{len(_LAYOUT)}.m.{grid}" for grid in range(len(STRIDES)))
"""Names of the first convolution, and of those that predict."""


class YoloV5(nn.Module):
    """The whole network.

    Args:
        size: which of the five.
        classes: number of classes.
        channels: of the images.
    """

    def __init__(self, size: Size, classes: int, channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        widths: list[int] = []
        for kind, sources, count, repeats in _LAYOUT:
            width_in = sum(widths[source] for source in sources) if widths else channels
            layer = _layer(kind, width_in, size.channels(count), size.repeats(repeats))
            layers.append(layer)
            widths.append(width_in if isinstance(layer, Upsample | Concat) else size.channels(count))
        layers.append(Detect(classes, [widths[source] for source in _DETECTED]))
        self.model = nn.Sequential(*layers)

    @property
    def anchors(self) -> Tensor:
        """[grids, anchors, 2] width and height of the anchors, in cells of their grid."""
        return self.model[-1].anchors  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Images [n, channels, h, w] of RGB / 255 to logits [n, anchors, 5 + classes]; h and w are multiples of 32."""
        *layers, detect = self.model
        outputs: list[Tensor] = []
        for layer, (_, sources, *_) in zip(layers, _LAYOUT, strict=True):
            x = layer(*(outputs[source] if outputs else x for source in sources))
            outputs.append(x)
        return detect([outputs[source] for source in _DETECTED])  # type: ignore[no-any-return]


def _layer(kind: str, channels_in: int, channels_out: int, repeats: int) -> nn.Module:
    match kind:
        case "stem":
            return Conv(channels_in, channels_out, 6, 2)
        case "down":
            return Conv(channels_in, channels_out, 3, 2)
        case "point":
            return Conv(channels_in, channels_out)
        case "c3":
            return C3(channels_in, channels_out, repeats, shortcut=True)
        case "c3 plain":
            return C3(channels_in, channels_out, repeats, shortcut=False)
        case "sppf":
            return SPPF(channels_in)
        case "upsample":
            return Upsample()
        case _:
            return Concat()


class DecodedYoloV5(nn.Module):
    """The network as it is deployed, with boxes in pixels and probabilities in place of logits.

    Args:
        network: gives the logits.
    """

    def __init__(self, network: YoloV5) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, channels, h, w] to [n, anchors, 5 + classes]: x, y (centre), w, h, objectness, classes."""
        grid = Grid(self.network.anchors.detach(), (int(images.shape[2]), int(images.shape[3])))
        values = self.network(images).sigmoid()
        return torch.cat([*grid.boxes(values), values[..., 4:]], 2)


class Grid:
    """Where the boxes of a network's predictions start from.

    Args:
        anchors: [grids, anchors, 2] width and height in cells.
        image_size: height and width of the images in pixels, multiples of 32.
    """

    def __init__(self, anchors: Tensor, image_size: tuple[int, int]) -> None:
        corners, sizes, cells = [], [], []
        for stride, shapes in zip(STRIDES, anchors.float().cpu().numpy(), strict=True):
            height, width = (side // stride for side in image_size)
            y, x = np.mgrid[:height, :width].reshape(2, 1, -1)
            corners.append(np.stack([x, y], -1).repeat(len(shapes), 0).reshape(-1, 2) * stride)
            sizes.append(shapes.repeat(height * width, 0) * stride)
            cells.append(np.full((len(sizes[-1]), 1), stride))
        # Numpy's arithmetic, so that an exported graph holds the results and not the way to them.
        self.corners, self.sizes, self.strides = (
            torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(anchors.device)
            for parts in (corners, sizes, cells)
        )
        """[anchors, 2] upper left of the cell, [anchors, 2] anchor, [anchors, 1] stride; all in pixels."""

    def boxes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and sizes in pixels, [n, anchors, 2] each, of outputs [n, anchors, ...] between 0 and 1.

        Centres may lie half a cell outside theirs, sizes are between 0 and 4 anchors.
        """
        centres = values[..., :2] * (2 * self.strides) + (self.corners - 0.5 * self.strides)
        spans = values[..., 2:4] * 2
        return centres, spans * spans * self.sizes

"""DDRNet-23 and DDRNet-23-slim: a residual network whose branch at 1/8 and branch down to 1/64 exchange features twice.

Hong et al. 2021, "Deep Dual-resolution Networks for Real-time and Accurate Semantic Segmentation of Road Scenes", arXiv
2101.06085; figure and table numbers below are the paper's. 20.1 M and 5.7 M parameters at 19 classes without the
training head.

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 64
leave no border that sees padding only. Training on one scene alone needs a side above 64: the pyramid norms its map.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import relu

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, enlarge, initialise, resize
from roadseg.nets.cpu_layers import BatchNorm2d, Sequential


class Residual(nn.Module):
    """ResNet's blocks (He 2016) without the last ReLU: the reader applies it, since branches are added before it
    (figure 4).

    `wide` False: two 3x3 convolutions. True, the paper's bottleneck: 1x1, 3x3, and 1x1 up to twice the channels.
    """

    def __init__(self, inputs: int, channels: int, stride: int = 1, *, wide: bool = False) -> None:
        super().__init__()
        outputs = 2 * channels if wide else channels
        layers = [
            ConvNormReLU(inputs, channels, 3, stride=stride),
            ConvNorm(channels, channels, 3),
        ]
        if wide:
            layers = [
                ConvNormReLU(inputs, channels),
                ConvNormReLU(channels, channels, 3, stride=stride),
                ConvNorm(channels, outputs),
            ]
        self.branch = Sequential(*layers)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs, stride=stride)

    def forward(self, features: Tensor) -> Tensor:
        return self.branch(features, shortcut=self.shortcut(features))


def stage(inputs: int, channels: int, stride: int = 1, blocks: int = 2) -> nn.Sequential:
    """That many basic blocks, the first with the stride, ReLUs between them; no ReLU at the end."""
    layers: list[nn.Module] = [Residual(inputs, channels, stride)]
    for _ in range(blocks - 1):
        layers += [nn.ReLU(inplace=True), Residual(channels, channels)]
    return nn.Sequential(*layers)


class NormConv(Sequential):
    """Norm, ReLU, convolution: the pre-activated order of DAPPM and of the heads."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        super().__init__(BatchNorm2d(inputs), nn.ReLU(inplace=True), conv)


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Pre-activated 3x3 and 1x1 convolutions: BCHW -> BOHW."""
    return Sequential(
        NormConv(inputs, hidden, 3), BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, outputs, 1)
    )


WINDOWS = ((5, 2), (9, 4), (17, 8))
"""Kernel and stride of DAPPM's average pooling, positions at 1/64. Its last level, not listed, is the whole map."""
LEVELS = len(WINDOWS) + 1


def averaged(features: Tensor, level: int) -> Tensor:
    """The averages of `WINDOWS[level]`, or of the whole map where that was the last: BCHW -> BChw."""
    if level == len(WINDOWS):
        return functional.adaptive_avg_pool2d(features, 1)
    kernel, stride = WINDOWS[level]
    return functional.avg_pool2d(features, kernel, stride, kernel // 2, count_include_pad=False)


class Pyramid(nn.Module):
    """DAPPM (figure 5, equation 4): averages over ever larger windows, each added to the next smaller and convolved.

    Two departures, both because our maps at 1/64 are a few positions wide. The norm and ReLU come before the pooling:
    after it they would see a handful of numbers in a batch. And windows that reach over the border average what is
    inside it (`count_include_pad=False`): else what a window gives would depend on the size of the crop.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fine = NormConv(inputs, hidden)
        self.norms = nn.ModuleList(Sequential(BatchNorm2d(inputs), nn.ReLU(inplace=True)) for _ in range(LEVELS))
        self.projections = nn.ModuleList(nn.Conv2d(inputs, hidden, 1, bias=False) for _ in range(LEVELS))
        self.mixes = nn.ModuleList(NormConv(hidden, hidden, 3) for _ in range(LEVELS))
        self.fuse = NormConv((LEVELS + 1) * hidden, outputs)
        self.shortcut = NormConv(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        scales = [self.fine(features)]
        for level, (norm, project, mix) in enumerate(zip(self.norms, self.projections, self.mixes, strict=True)):
            coarse = project(averaged(norm(features), level))
            scales.append(mix(scales[-1] + resize(coarse, features.shape[-2:])))
        return self.fuse(torch.cat(scales, dim=1)) + self.shortcut(features)


class DDRNet23(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `width`: channels of the first stage, of which all others are multiples (table 1). `hidden`: channels inside the
    classifier and the training head.

    `low` is the branch that shrinks to 1/64 (its stages named by their stride below), `high` the one that stays at 1/8.
    The training head sits on `high` after the first exchange (weight `train.aux_weight`); its logits are at 1/8.
    """

    def __init__(self, classes: int, *, width: int = 64, hidden: int = 128) -> None:
        super().__init__()
        c1, c2, c4, c8 = width, 2 * width, 4 * width, 8 * width
        self.stem = nn.Sequential(
            ConvNormReLU(3, c1, 3, stride=2), ConvNormReLU(c1, c1, 3, stride=2),
            stage(c1, c1), nn.ReLU(inplace=True), stage(c1, c2, 2),
        )  # fmt: skip
        self.low16, self.low32, self.low64 = stage(c2, c4, 2), stage(c4, c8, 2), Residual(c8, c8, 2, wide=True)
        self.high3, self.high4, self.high5 = stage(c2, c2), stage(c2, c2), Residual(c2, c2, wide=True)
        self.to_low3 = ConvNorm(c2, c4, 3, stride=2)
        self.to_low4 = nn.Sequential(ConvNormReLU(c2, c4, 3, stride=2), ConvNorm(c4, c8, 3, stride=2))
        self.to_high3 = ConvNorm(c4, c2)
        self.to_high4 = ConvNorm(c8, c2)
        self.pyramid = Pyramid(2 * c8, 128, c4)  # 128 at both widths
        self.classifier = head(c4, hidden, classes)
        self.heads = nn.ModuleList([head(c2, hidden, classes)])
        initialise(self)

    def _exchange(self, low: Tensor, high: Tensor, to_low: nn.Module, to_high: nn.Module) -> tuple[Tensor, Tensor]:
        """Equation 1: each branch plus what it is given of the other, brought to its own size."""
        return low + to_low(relu(high)), high + resize(to_high(relu(low)), high.shape[-2:])

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        shared = relu(self.stem(image))
        low, high = self._exchange(self.low16(shared), self.high3(shared), self.to_low3, self.to_high3)
        early = high
        low, high = self._exchange(self.low32(relu(low)), self.high4(relu(high)), self.to_low4, self.to_high4)
        low, high = self.pyramid(self.low64(relu(low))), self.high5(relu(high))
        logits = self.classifier(high + resize(low, high.shape[-2:]))
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        return [logits, *(each(early) for each in self.heads)]


class DDRNet23Slim(DDRNet23):
    """`DDRNet23` with half the channels throughout, the pyramid's inner ones excepted."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes, width=32, hidden=64)

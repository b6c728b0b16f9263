"""LMFFNet: bottlenecks that look near and far side by side, the shrunk image fed in again at every scale, and a decoder
whose logits are weighted by attention from two scales.

Shi et al. 2022, "LMFFNet: A Well-Balanced Lightweight Network for Fast and Accurate Semantic Segmentation", IEEE
Transactions on Neural Networks and Learning Systems, doi 10.1109/TNNLS.2022.3176493; its LMFFNet-3-8, named after the
numbers of bottlenecks. The paper could not be read whole: widths, kernels and dilations are those of the authors' code
(github.com/Greak-1124/LMFFNet). 1.35 M parameters at 19 classes; no training heads.

| stage | theirs | channels | at 512x1024 |
|---|---|---|---|
| `stem`: three 3x3 convolutions | Init Block | 32 | 256x512 |
| `fuse2`: with the image | FFM-A | 32 + 3 | 256x512 |
| `down4` | downsampling | 64, of which 35 maxima | 128x256 |
| `stage4`: 3 bottlenecks | SEM-B Block1 | 64 | 128x256 |
| `fuse4`: `stage4`, attended `down4`, the image | FFM-B1 with PMCA | 64 + 64 + 3 | 128x256 |
| `down8`, without maxima: channels do not grow | downsampling | 128 | 64x128 |
| `stage8`: 8 bottlenecks | SEM-B Block2 | 128 | 64x128 |
| `fuse8`: `stage8`, attended `down8`, the image | FFM-B2 with PMCA | 128 + 128 + 3 | 64x128 |
| `decoder` | MAD | classes | 128x256 |

Departures from the authors' code: the maxima of an odd size take in its last row and column, and resizing goes to
measured sizes, where theirs takes multiples of 8 only; the means of the image leave the padding out, where theirs count
it as zeros; norms have torch's epsilon of 1e-5, as everywhere here, where theirs have 1e-3; the layers of the attention
are 1x1 convolutions, initialised like all others, where theirs are linear layers, which compute the same and start as
torch makes them; the decoder's sigmoid is written with a softplus, for its digits near 0.

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 8
leave no border that sees padding only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNorm, enlarge, initialise, resize
from roadseg.nets.cpu_layers import BatchNorm2d, PReLU, Sequential

DILATIONS4 = (2, 2, 2)
DILATIONS8 = (4, 4, 8, 8, 16, 16, 32, 32)
"""Of the bottlenecks at 1/4 and at 1/8."""


def _conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1, groups: int = 1) -> ConvNorm:
    activation = PReLU(outputs)
    return ConvNorm(inputs, outputs, kernel, stride=stride, dilation=dilation, groups=groups, activation=activation)


def _separable(inputs: int, outputs: int) -> nn.Sequential:
    """Depthwise 3x3 with norm and PReLU, then a bare 1x1 convolution."""
    return nn.Sequential(_conv(inputs, inputs, 3, groups=inputs), nn.Conv2d(inputs, outputs, 1, bias=False))


def halved(image: Tensor) -> Tensor:
    """Means over 3x3 windows with stride 2: BCHW at 1/2, rounded up. At the border they are of what is inside."""
    return functional.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)


class NormPReLU(Sequential):
    """Batch norm and PReLU, a slope a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(BatchNorm2d(channels), PReLU(channels))


class Bottleneck(nn.Module):
    """SEM-B: split, extract, merge. A 3x3 convolution to half the channels; the first half of these through a depthwise
    3x3 convolution, the second through a dilated one; a 3x3 convolution over both, a linear 1x1 back, added to the
    input, norm and PReLU. Keeps the shape."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.reduce = _conv(channels, half, 3)
        self.near = _conv(quarter, quarter, 3, groups=quarter)
        self.far = _conv(quarter, quarter, 3, dilation=dilation, groups=quarter)
        self.merge = nn.Sequential(_conv(half, half, 3), nn.Conv2d(half, channels, 1, bias=False))
        self.last = NormPReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        first, second = self.reduce(features).chunk(2, dim=1)
        return self.last(features + self.merge(torch.cat([self.near(first), self.far(second)], dim=1)))


class Down(nn.Module):
    """A 3x3 convolution with stride 2, beside it, where channels are to be gained, the input's maxima over 2x2; norm
    and PReLU over all. BCHW -> BO(H/2)(W/2), rounded up."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pooled = inputs < outputs
        made = outputs - inputs if self.pooled else outputs
        self.conv = nn.Conv2d(inputs, made, 3, stride=2, padding=1, bias=False)
        self.last = NormPReLU(outputs)

    def forward(self, features: Tensor) -> Tensor:
        made = self.conv(features)
        if self.pooled:
            # An odd size's last window reaches over the border and takes the maximum of what is inside.
            made = torch.cat([made, functional.max_pool2d(features, 2, ceil_mode=True)], dim=1)
        return self.last(made)


class Attention(nn.Module):
    """PMCA, partition-merge channel attention: squeeze and excitation (Hu 2018) that knows the quarters of the map. The
    means of the four are weighted, channel by channel, and added to the mean of the whole. Keeps the shape.

    Quarters of an odd size share its middle row or column.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.merge = nn.Conv2d(channels, channels, 2, groups=channels, bias=False)
        self.share = nn.Sequential(
            nn.Conv2d(channels, channels // 8, 1, bias=False),
            nn.PReLU(),
            nn.Conv2d(channels // 8, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        quarters = self.merge(functional.adaptive_avg_pool2d(features, 2))
        return features * self.share(quarters + functional.adaptive_avg_pool2d(features, 1))


class Fusion(nn.Module):
    """FFM: what is given, concatenated, normed, through a PReLU and a 1x1 convolution over all `channels`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = NormPReLU(channels)
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, *parts: Tensor) -> Tensor:
        return self.mix(self.norm(torch.cat(parts, dim=1)))


class Decoder(nn.Module):
    """MAD, multiscale attention decoder: features at 1/4 and 1/8 -> logits at 1/4. Those of 1/8 alone, enlarged, times
    a share between 0 and 1 for each class and position, which both scales give."""

    def __init__(self, at4: int, at8: int, classes: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(at4, 16, 1, bias=False)
        self.deep = nn.Conv2d(at8, 32, 1, bias=False)
        self.attention = _separable(16 + 32, classes)
        self.classifier = _separable(at8, classes)

    def forward(self, at4: Tensor, at8: Tensor) -> Tensor:
        size = at4.shape[-2:]
        both = torch.cat([self.fine(at4), resize(self.deep(at8), size)], dim=1)
        # The sigmoid, by a way that keeps its digits near 0: ONNX Runtime's own has few of them at -15 and is 0 from
        # -20 on. Where every class that the coarse scale likes has so small a share, that noise would choose.
        share = (-functional.softplus(-self.attention(both))).exp()
        return resize(self.classifier(at8), size) * share


class LMFFNet(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a smaller one, in a list, in training mode.

    `dilations4`, `dilations8`: of the bottlenecks at 1/4 and at 1/8; their numbers are the depths there.
    """

    def __init__(
        self, classes: int, *, dilations4: Sequence[int] = DILATIONS4, dilations8: Sequence[int] = DILATIONS8
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, 32, 3, stride=2), _conv(32, 32, 3), _conv(32, 32, 3))
        self.fuse2 = Fusion(32 + 3)
        self.down4 = Down(32 + 3, 64)
        self.stage4 = nn.Sequential(*[Bottleneck(64, dilation) for dilation in dilations4])
        self.attention4 = Attention(64)
        self.fuse4 = Fusion(64 + 64 + 3)
        self.down8 = Down(64 + 64 + 3, 128)
        self.stage8 = nn.Sequential(*[Bottleneck(128, dilation) for dilation in dilations8])
        self.attention8 = Attention(128)
        self.fuse8 = Fusion(128 + 128 + 3)
        self.decoder = Decoder(64 + 64 + 3, 128 + 128 + 3, classes)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        image2 = halved(image)
        image4 = halved(image2)
        coarse = self.down4(self.fuse2(self.stem(image), image2))
        at4 = self.fuse4(self.stage4(coarse), self.attention4(coarse), image4)
        coarse = self.down8(at4)
        at8 = self.fuse8(self.stage8(coarse), self.attention8(coarse), halved(image4))
        logits = self.decoder(at4, at8)
        return [logits] if self.training else enlarge(logits, image.shape[-2:])

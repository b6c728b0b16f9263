"""RegSeg: grouped convolutions at two dilations beside one another, so that 1/16 suffices to see the whole image.

Gao 2021, "Rethinking Dilated Convolution for Real-time Semantic Segmentation", arXiv 2111.09957; in the author's code
`exp48_decoder26`. 3.3 M parameters at 19 classes; no training heads.

Its neighbour is LMFFNet (1.3 M parameters), the other small network that needs no ImageNet: docs/studies/small.md has
both trained alike here. By the READMEs of both, on Cityscapes' test split without pre-training, RegSeg has 78.3 and
LMFFNet 76.1; of CamVid alone only LMFFNet has scores.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes. Multiples of 16
leave no border that sees padding only.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import relu

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, enlarge, initialise, resize
from roadseg.nets.cpu_layers import BatchNorm2d, Sequential

GROUP = 16
"""Channels a group of the 3x3 convolutions."""

DILATIONS = ((1, 1), (1, 2), *4 * ((1, 4),), *7 * ((1, 14),))
"""Of the blocks at 1/16 after the one with the stride."""


class Excitation(nn.Module):
    """Squeeze and excitation (Hu 2018): a share between 0 and 1 for each channel, from the whole map's means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features * self.layers(features)


class Dilated(nn.Module):
    """A grouped 3x3 convolution over each half of the channels, with a dilation of its own; one over all of them where
    the dilations are equal. Norm and ReLU follow."""

    def __init__(self, channels: int, dilations: tuple[int, int], stride: int) -> None:
        super().__init__()
        parts = sorted(set(dilations))
        width = channels // len(parts)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride, dilation, dilation, width // GROUP, bias=False) for dilation in parts
        )
        self.norm = BatchNorm2d(channels)

    def forward(self, features: Tensor) -> Tensor:
        parts = features.chunk(len(self.convs), dim=1)
        joined = torch.cat([conv(part) for conv, part in zip(self.convs, parts, strict=True)], dim=1)
        return relu(self.norm(joined))


class DBlock(nn.Module):
    """The paper's D block, RegNet's Y block with `Dilated` in its middle: 1x1, 3x3, excitation, linear 1x1, added to
    the input and a ReLU. BCHW -> BCHW at 1/`stride`, sizes rounded up.

    Where the shape changes, the input goes by means over 2x2, if it shrinks, and a 1x1 convolution.
    """

    def __init__(self, inputs: int, outputs: int, dilations: tuple[int, int] = (1, 1), stride: int = 1) -> None:
        super().__init__()
        self.branch = Sequential(
            ConvNormReLU(inputs, outputs),
            Dilated(outputs, dilations, stride),
            Excitation(outputs, inputs // 4),
            ConvNorm(outputs, outputs),
        )
        same = stride == 1 and inputs == outputs
        self.stride = stride
        self.shortcut = nn.Identity() if same else ConvNorm(inputs, outputs)
        self.activation = nn.ReLU()

    def forward(self, features: Tensor) -> Tensor:
        passed = features
        if self.stride > 1:
            # An odd size's last window reaches over the border and averages what is inside.
            passed = functional.avg_pool2d(features, self.stride, ceil_mode=True, count_include_pad=False)
        return self.branch(features, shortcut=self.shortcut(passed), activation=self.activation)


class Decoder(nn.Module):
    """Features at 1/4, 1/8 and 1/16 -> 64 channels at 1/4: 1/16 added to 1/8, 1/4 concatenated, a 3x3 convolution after
    each."""

    def __init__(self, at4: int, at8: int, at16: int) -> None:
        super().__init__()
        self.project4, self.project8, self.project16 = (
            ConvNormReLU(at4, 8), ConvNormReLU(at8, 128), ConvNormReLU(at16, 128),
        )  # fmt: skip
        self.mix8 = ConvNormReLU(128, 64, 3)
        self.mix4 = ConvNormReLU(64 + 8, 64, 3)

    def forward(self, at4: Tensor, at8: Tensor, at16: Tensor) -> Tensor:
        coarse = self.mix8(self.project8(at8) + resize(self.project16(at16), at8.shape[-2:]))
        return self.mix4(torch.cat([resize(coarse, at4.shape[-2:]), self.project4(at4)], dim=1))


class RegSeg(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a smaller one, in a list, in training mode.

    `dilations`: of the blocks at 1/16, the one with the stride aside; their number is the depth there.
    """

    def __init__(self, classes: int, *, dilations: Sequence[tuple[int, int]] = DILATIONS) -> None:
        super().__init__()
        self.stem = ConvNormReLU(3, 32, 3, stride=2)
        self.stage4 = DBlock(32, 48, stride=2)
        self.stage8 = nn.Sequential(DBlock(48, 128, stride=2), DBlock(128, 128), DBlock(128, 128))
        self.stage16 = nn.Sequential(
            DBlock(128, 256, stride=2),
            *[DBlock(256, 256, pair) for pair in dilations[:-1]],
            DBlock(256, 320, dilations[-1]),
        )
        self.decoder = Decoder(48, 128, 320)
        self.classifier = nn.Conv2d(64, classes, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        at4 = self.stage4(self.stem(image))
        at8 = self.stage8(at4)
        features = self.decoder(at4, at8, self.stage16(at8))
        logits = self.classifier(features)
        return [logits] if self.training else enlarge(logits, image.shape[-2:])

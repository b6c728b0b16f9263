"""U-Net: four times down and four times up again, with every map of the way down beside its counterpart.

Ronneberger et al. 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597; figure
numbers below are the paper's. At 19 classes 13.4 M parameters in the bilinear form, that of PaddleSeg; 31.0 M in the
classic one, which doubles to 1024 channels at the bottom and goes up by transposed convolutions.

Departures: convolutions are padded and batch-normed, as everybody's since, so that logits have the input's size.

Input: any height and width from 64 up. Pooling divides upwards (the last row or column of an odd map is pooled alone);
on the way up the size is that of the counterpart. Multiples of 16 need neither.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNormReLU, initialise, resize


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    """Figure 1's pair of 3x3 convolutions."""
    return nn.Sequential(ConvNormReLU(inputs, outputs, 3), ConvNormReLU(outputs, outputs, 3))


class Up(nn.Module):
    """Deep features brought to the size of their counterpart, concatenated with it, and two convolutions.

    `bilinear`: resized as they are. Otherwise a transposed 2x2 convolution to half of the channels, and what is beyond
    an odd counterpart's border cut off.
    """

    def __init__(self, inputs: int, skip: int, outputs: int, *, bilinear: bool) -> None:
        super().__init__()
        self.widen = None if bilinear else nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
        self.convs = _twice(skip + (inputs if bilinear else inputs // 2), outputs)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        height, width = skip.shape[-2:]
        if self.widen is None:
            features = resize(features, (height, width))
        else:
            features = self.widen(features)[..., :height, :width]
        fused: Tensor = self.convs(torch.cat([skip, features], dim=1))
        return fused


class UNet(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of them, here of one, in training mode.

    `bilinear`: the form of 13.4 M parameters; else the classic one of 31.0 M.
    """

    def __init__(self, classes: int, *, bilinear: bool = True) -> None:
        super().__init__()
        widths = [64, 128, 256, 512, 512 if bilinear else 1024]
        ups = [256, 128, 64, 64] if bilinear else [512, 256, 128, 64]
        self.first = _twice(3, widths[0])
        self.down = nn.ModuleList(_twice(*pair) for pair in pairwise(widths))
        deep = [widths[-1], *ups]
        self.up = nn.ModuleList(
            Up(inputs, skip, outputs, bilinear=bilinear)
            for inputs, skip, outputs in zip(deep[:-1], widths[-2::-1], ups, strict=True)
        )
        self.classifier = nn.Conv2d(64, classes, 1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        features = self.first(image)
        skips = []
        for convs in self.down:
            skips.append(features)
            features = convs(functional.max_pool2d(features, 2, ceil_mode=True))
        for up in self.up:
            features = up(features, skips.pop())
        logits = self.classifier(features)
        return [logits] if self.training else logits

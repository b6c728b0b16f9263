"""PP-LiteSeg-T and -B: STDC's backbone, a pyramid that adds instead of stacking, and a decoder that mixes two
resolutions by a weight for each position.

Peng et al. 2022, "PP-LiteSeg: A Superior Real-Time Semantic Segmentation Model", arXiv 2204.02681; figure numbers below
are the paper's, widths and kernels those of the authors' code (PaddleSeg). 8.0 M (T) and 12.2 M (B) parameters at 19
classes without the training heads.

Departures: norms see the map before it is pooled (`roadseg.nets.pooling`); the logits of both training heads
come at 1/8, from where the authors' code enlarges them to the input's size, and their losses weigh
`train.aux_weight`, where the authors' configurations have 1; the backbone's are STDC's (`roadseg.nets.stdc`).

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 32
leave no border that sees padding only.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, Head, enlarge, initialise, resize
from roadseg.nets.pooling import Pooled
from roadseg.nets.stdc import STDC, STDC1, STDC2


class SimplePyramid(nn.Module):
    """SPPM (figure 4): averages over 1x1, 2x2 and 4x4 windows, through a 1x1 convolution each, enlarged and added; a
    3x3 convolution follows. BCHW -> BOHW."""

    BINS = (1, 2, 4)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Pooled(ConvNorm(inputs, outputs), bins) for bins in self.BINS)
        self.smooth = ConvNormReLU(outputs, outputs, 3)

    def forward(self, features: Tensor) -> Tensor:
        size = features.shape[-2:]
        levels = [resize(relu(level(features)), size) for level in self.levels]
        return self.smooth(torch.stack(levels).sum(dim=0))


class AttentionFusion(nn.Module):
    """UAFM with spatial attention (figure 3): (fine BFHW, deep BDhw with h <= H) -> BOHW.

    Both become D channels of HxW. Their means and maxima over the channels, four numbers a position, give the weight of
    the fine ones there; the deep ones have the rest.
    """

    def __init__(self, fine: int, deep: int, outputs: int) -> None:
        super().__init__()
        self.project = ConvNormReLU(fine, deep, 3)
        self.attention = nn.Sequential(ConvNormReLU(4, 2, 3), ConvNorm(2, 1, 3))
        self.smooth = ConvNormReLU(deep, outputs, 3)

    def forward(self, fine: Tensor, deep: Tensor) -> Tensor:
        fine = self.project(fine)
        deep = resize(deep, fine.shape[-2:])
        seen = [
            reduced for each in (fine, deep) for reduced in (each.mean(1, keepdim=True), each.amax(1, keepdim=True))
        ]
        weight = self.attention(torch.cat(seen, dim=1)).sigmoid()
        return self.smooth(fine * weight + deep * (1 - weight))


class PPLiteSeg(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `modules`: the backbone's (`roadseg.nets.stdc`). `widths`: the decoder's channels at 1/8, 1/16 and 1/32; the pyramid
    has as many as the last. `hidden`: the main head's. The training heads sit on the decoder at 1/16 and 1/32; their
    logits are at 1/8. Without arguments it is T; `ppliteseg_b` is B.
    """

    def __init__(
        self,
        classes: int,
        *,
        modules: tuple[int, int, int] = STDC1,
        widths: tuple[int, int, int] = (32, 64, 128),
        hidden: int = 32,
    ) -> None:
        super().__init__()
        self.backbone = STDC(modules)
        self.pyramid = SimplePyramid(STDC.CHANNELS[-1], widths[-1])
        deep = (*widths[1:], widths[-1])
        self.fusions = nn.ModuleList(map(AttentionFusion, STDC.CHANNELS, deep, widths))
        self.classifier = Head(widths[0], hidden, classes)
        self.heads = nn.ModuleList(Head(width, 64, classes) for width in widths[1:])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        scales = self.backbone(image)
        features = self.pyramid(scales[-1])
        decoded: list[Tensor] = []
        for fusion, scale in zip(reversed(self.fusions), reversed(scales), strict=True):
            features = fusion(scale, features)
            decoded.insert(0, features)
        logits = self.classifier(features)
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        size8 = features.shape[-2:]
        return [logits, *(resize(head(each), size8) for head, each in zip(self.heads, decoded[1:], strict=True))]


def ppliteseg_b(classes: int) -> PPLiteSeg:
    """PP-LiteSeg-B: STDC2 and a wider decoder."""
    return PPLiteSeg(classes, modules=STDC2, widths=(64, 96, 128), hidden=64)

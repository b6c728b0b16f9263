"""STDC1-Seg and STDC2-Seg: a backbone that halves its channels as it goes deeper and keeps them all, under BiSeNet's
decoder; a training head that looks for edges takes the place of BiSeNet's spatial path.

Fan et al. 2021, "Rethinking BiSeNet For Real-time Semantic Segmentation", arXiv 2104.13188; figure and table numbers
below are the paper's, widths that it leaves open are those of the authors' code. 8.3 M (STDC1) and 12.3 M (STDC2)
parameters at 19 classes without the training heads.

Departures: norms see the map before it is pooled to 1x1 (`roadseg.nets.bilateral`); the decoder enlarges bilinearly,
where the authors' code repeats the nearest; the average pooling leaves the padding out of its means, where the authors'
counts it as zeros; what the detail head is held against is the training loop's (`roadseg.losses.boundary`); the logits
of all training heads are at 1/8, and their losses weigh `train.aux_weight`, where the authors' code has 1.

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 32
leave no border that sees padding only.
"""

import torch
from torch import Tensor, nn

from roadseg.nets.bilateral import ContextNeck, FeatureFusion
from roadseg.nets.blocks import ConvNorm, ConvNormReLU, Head, enlarge, initialise, resize

STDC1 = (2, 2, 2)
STDC2 = (4, 5, 3)
"""Modules in the stages at 1/8, 1/16 and 1/32: table 2."""


class ShortTermDense(nn.Module):
    """Figure 3: four convolutions in a row, each with half the channels of the one before (the last with as many), all
    four kept side by side. BCHW -> BOHW, or half the size.

    With stride 2 (figure 3c) a depthwise convolution strides after the first, whose own output is average-pooled.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        half, quarter, eighth = outputs // 2, outputs // 4, outputs // 8
        self.first = ConvNormReLU(inputs, half)
        self.down: nn.Module = nn.Identity()
        self.pool: nn.Module = nn.Identity()
        if stride != 1:
            self.down = ConvNorm(half, half, 3, stride=stride, groups=half)
            self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)
        self.rest = nn.ModuleList(
            [ConvNormReLU(half, quarter, 3), ConvNormReLU(quarter, eighth, 3), ConvNormReLU(eighth, eighth, 3)]
        )

    def forward(self, features: Tensor) -> Tensor:
        features = self.first(features)
        kept = [self.pool(features)]
        features = self.down(features)
        for conv in self.rest:
            features = conv(features)
            kept.append(features)
        return torch.cat(kept, dim=1)


class STDC(nn.Module):
    """The backbone (table 2): float32 B3HW -> features of 256, 512 and 1024 channels at 1/8, 1/16 and 1/32.

    `modules`: how many `ShortTermDense` each of these stages has, the first with stride 2.
    """

    CHANNELS = (256, 512, 1024)

    def __init__(self, modules: tuple[int, int, int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvNormReLU(3, 32, 3, stride=2), ConvNormReLU(32, 64, 3, stride=2))
        widths = (64, *self.CHANNELS)
        self.stages = nn.ModuleList(
            nn.Sequential(
                ShortTermDense(inputs, outputs, 2), *[ShortTermDense(outputs, outputs) for _ in range(repeats - 1)]
            )
            for inputs, outputs, repeats in zip(widths[:-1], widths[1:], modules, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        features, scales = self.stem(image), []
        for stage in self.stages:
            features = stage(features)
            scales.append(features)
        return scales


class STDCSeg(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    Figure 4. The training heads are at 1/8: two that classify, on the context at 1/8 and, enlarged, at 1/16, then the
    detail head on the backbone's features at 1/8, whose single channel is the logit of an edge.
    """

    def __init__(self, classes: int, *, modules: tuple[int, int, int] = STDC1) -> None:
        super().__init__()
        self.backbone = STDC(modules)
        fine, middle, deep = STDC.CHANNELS
        self.neck = ContextNeck(middle, deep)
        self.fusion = FeatureFusion(fine + ContextNeck.CHANNELS, 256, 64)
        self.classifier = Head(256, 256, classes)
        context = ContextNeck.CHANNELS
        self.heads = nn.ModuleList([Head(context, 64, classes), Head(context, 64, classes), Head(fine, 64, 1)])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        fine, middle, deep = self.backbone(image)
        size8 = fine.shape[-2:]
        context8, context16 = self.neck(middle, deep, size8)
        logits = self.classifier(self.fusion(fine, context8))
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        head8, head16, detail = self.heads
        return [logits, head8(context8), resize(head16(context16), size8), detail(fine)]


def stdc2seg(classes: int) -> STDCSeg:
    """STDC2-Seg; `STDCSeg` without arguments is STDC1-Seg."""
    return STDCSeg(classes, modules=STDC2)

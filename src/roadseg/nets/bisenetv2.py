"""BiSeNetV2: a wide and shallow branch down to 1/8, a narrow and deep one down to 1/32, each guiding the other.

Yu et al. 2020, "BiSeNet V2: Bilateral Network with Guided Aggregation for Real-time Semantic Segmentation", arXiv
2004.02147; figure and table numbers below are the paper's. 2.3 M parameters at 19 classes without the training heads.

The main head is `hidden` channels wide: 128 as in PaddleSeg, which reports the paper's accuracy with it. CoinCheung's
and OpenMMLab's implementations have 1024: 3.4 M parameters and half as much work again.

Departures: the norm of the context embedding sees the map before it is pooled (`roadseg.nets.pooling`); the average
pooling of the aggregation leaves the padding out of its means, else the border would depend on it; the logits of all
training heads come at 1/8, from where the paper enlarges them to the input's size, and their losses weigh
`train.aux_weight`, where PaddleSeg and CoinCheung have 1.

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 32
leave no border that sees padding only.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, Head, enlarge, initialise, resize
from roadseg.nets.cpu_layers import BatchNorm2d, Sequential
from roadseg.nets.pooling import Pooled


class Stem(nn.Module):
    """Figure 4a: a convolution to 1/2, then a strided convolution and a max pooling side by side. B3HW ->
    BO(H/4)(W/4)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(3, outputs, 3, stride=2)
        self.branch = nn.Sequential(
            ConvNormReLU(outputs, outputs // 2), ConvNormReLU(outputs // 2, outputs, 3, stride=2)
        )
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.fuse = ConvNormReLU(2 * outputs, outputs, 3)

    def forward(self, image: Tensor) -> Tensor:
        features = self.conv(image)
        return self.fuse(torch.cat([self.branch(features), self.pool(features)], dim=1))


class GatherExpansion(nn.Module):
    """Figure 5b and c: 3x3 convolution, depthwise 3x3 up to `EXPANSION` times the channels, linear 1x1 back down, added
    to the input. With stride 2 a second depthwise 3x3, and a separable convolution as the shortcut."""

    EXPANSION = 6

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        hidden = self.EXPANSION * inputs
        strided = stride != 1
        self.branch = Sequential(
            ConvNormReLU(inputs, inputs, 3),
            ConvNorm(inputs, hidden, 3, stride=stride, groups=inputs),
            *([ConvNorm(hidden, hidden, 3, groups=hidden)] if strided else []),
            ConvNorm(hidden, outputs),
        )
        self.shortcut: nn.Module = nn.Identity()
        self.activation = nn.ReLU()
        if strided:
            self.shortcut = nn.Sequential(
                ConvNorm(inputs, inputs, 3, stride=stride, groups=inputs), ConvNorm(inputs, outputs)
            )

    def forward(self, features: Tensor) -> Tensor:
        return self.branch(features, shortcut=self.shortcut(features), activation=self.activation)


class ContextEmbedding(nn.Module):
    """Figure 4b: the average of the whole map, normed and through a 1x1 convolution, is added to every position; a 3x3
    convolution follows. Keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.average = Pooled(nn.Sequential(BatchNorm2d(channels), ConvNorm(channels, channels)))
        # Nothing follows it in the paper. No bias: both readers norm what they make of it.
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features + relu(self.average(features)))


class GuidedAggregation(nn.Module):
    """Figure 6: each branch, once at 1/8 and once at 1/32, is gated by the other one there; the sum is at 1/8.

    (detail BC(H/8)(W/8), semantics BC(H/32)(W/32)) -> BC(H/8)(W/8). Detail comes down by two strides of 2, which give
    the semantic branch's size exactly, since that one also halves upwards.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail_kept = self._separable(channels)
        self.detail_down = nn.Sequential(
            ConvNorm(channels, channels, 3, stride=2), nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)
        )
        self.semantic_kept = self._separable(channels)
        self.semantic_up = ConvNorm(channels, channels, 3)
        self.fuse = ConvNorm(channels, channels, 3)

    @staticmethod
    def _separable(channels: int) -> nn.Sequential:
        return nn.Sequential(ConvNorm(channels, channels, 3, groups=channels), nn.Conv2d(channels, channels, 1))

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        size = detail.shape[-2:]
        at8 = self.detail_kept(detail) * resize(self.semantic_up(semantic), size).sigmoid()
        at32 = self.detail_down(detail) * self.semantic_kept(semantic).sigmoid()
        return self.fuse(at8 + resize(at32, size))


class BiSeNetV2(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    The branches' stages are those of table 1. The training heads (the paper's booster, section 3.3) sit on the semantic
    branch at 1/4, 1/8, 1/16 and 1/32, each as wide as what it reads; their logits are at 1/8.
    """

    def __init__(self, classes: int, *, hidden: int = 128) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            nn.Sequential(ConvNormReLU(3, 64, 3, stride=2), ConvNormReLU(64, 64, 3)),
            nn.Sequential(ConvNormReLU(64, 64, 3, stride=2), ConvNormReLU(64, 64, 3), ConvNormReLU(64, 64, 3)),
            nn.Sequential(ConvNormReLU(64, 128, 3, stride=2), ConvNormReLU(128, 128, 3), ConvNormReLU(128, 128, 3)),
        )
        self.semantic = nn.ModuleList([
            Stem(16),
            nn.Sequential(GatherExpansion(16, 32, 2), GatherExpansion(32, 32)),
            nn.Sequential(GatherExpansion(32, 64, 2), GatherExpansion(64, 64)),
            nn.Sequential(GatherExpansion(64, 128, 2), *[GatherExpansion(128, 128) for _ in range(3)]),
        ])  # fmt: skip
        self.context = ContextEmbedding(128)
        self.aggregation = GuidedAggregation(128)
        self.classifier = Head(128, hidden, classes)
        self.heads = nn.ModuleList(Head(width, width, classes) for width in (16, 32, 64, 128))
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        detail = self.detail(image)
        features, stages = image, []
        for stage in self.semantic:
            features = stage(features)
            stages.append(features)
        fused = self.aggregation(detail, self.context(features))
        logits = self.classifier(fused)
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        fine = detail.shape[-2:]
        return [logits, *(resize(head(stage), fine) for head, stage in zip(self.heads, stages, strict=True))]

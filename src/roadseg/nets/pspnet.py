"""PSPNet: a dilated ResNet whose features are averaged over 1, 2, 3 and 6 bins a side, beside themselves.

Zhao et al. 2017, "Pyramid Scene Parsing Network", arXiv 1612.01105; section numbers below are the paper's. At 19
classes without the training head, in millions of parameters: ResNet-18 12.6, 50 46.6, 101 65.6. PaddleSeg's is larger:
its last 3x3 convolution has twice the channels (`hidden` 1024), and it counts the training head.

Departures: the norm of the pooled features comes before the pooling in training, since one bin of one image is one
number a channel; the ResNet has one 7x7 convolution at its start, where the authors' has three of 3x3.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.backbones import resnet
from roadseg.nets.blocks import ConvNorm, ConvNormReLU, Head, initialise, resize


class PyramidPooling(nn.Module):
    """Section 3.2: averages over 1x1, 2x2, 3x3 and 6x6 bins, a quarter of the channels each, beside the input; then a
    3x3 convolution. Keeps height and width."""

    BINS = (1, 2, 3, 6)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(ConvNorm(inputs, inputs // len(self.BINS)) for _ in self.BINS)
        self.fuse = ConvNormReLU(2 * inputs, outputs, 3)

    def _pooled(self, features: Tensor, bins: int, project: nn.Module) -> Tensor:
        """1x1 convolution and norm are linear, so that pooling first gives the same, and is nearly free (afterwards it
        would be 6 % of ResNet-101's multiply-adds); in training the norm needs all positions."""
        if self.training:
            return functional.relu(functional.adaptive_avg_pool2d(project(features), bins))
        return functional.relu(project(functional.adaptive_avg_pool2d(features, bins)))

    def forward(self, features: Tensor) -> Tensor:
        levels = [features]
        for bins, project in zip(self.BINS, self.projections, strict=True):
            levels.append(resize(self._pooled(features, bins, project), features.shape[-2:]))
        fused: Tensor = self.fuse(torch.cat(levels, dim=1))
        return fused


class PSPNet(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of them, main first, in training mode.

    `depth` of the ResNet: 18, 50, 101. `hidden`: channels before the classifier; None is a quarter of the ResNet's, the
    authors' 512 for 50 and 101. Features, and the training head's logits (section 4.1, weight
    `roadseg.nets.AUX_WEIGHT`), are at 1/8.
    """

    def __init__(self, classes: int, depth: int = 101, hidden: int | None = None) -> None:
        super().__init__()
        self.backbone = resnet(depth, output_stride=8)
        middle, deep = self.backbone.channels[2:]
        hidden = hidden or deep // 4
        self.pyramid = PyramidPooling(deep, hidden)
        self.classifier = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(hidden, classes, 1))
        self.heads = nn.ModuleList([Head(middle, middle // 4, classes)])
        for part in (self.pyramid, self.classifier, self.heads):
            initialise(part)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        _, _, middle, deep = self.backbone(image)
        logits = resize(self.classifier(self.pyramid(deep)), image.shape[-2:])
        if not self.training:
            return logits
        return [logits, *(head(middle) for head in self.heads)]

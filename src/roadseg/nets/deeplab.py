"""DeepLabV3 and DeepLabV3+: a dilated ResNet read at several dilations at once (ASPP); V3+ adds a small decoder at 1/4.

Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587 (V3); Chen et al.
2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation", arXiv 1802.02611 (V3+).
At 19 classes without the training head, in millions of parameters: V3 on ResNet-18 15.3, 50 39.0, 101 58.0; V3+ 12.3,
26.7 and 45.7.

Departures: the norm of the image-level features comes before the pooling in training, since one image has one such
feature a channel; and the stages have no multi-grid: each has one dilation, as in PaddleSeg and torchvision. V3+'s ASPP
and decoder are depthwise separable on ResNets too. The training head is PSPNet's, on the third stage.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.backbones import resnet
from roadseg.nets.blocks import ConvNorm, ConvNormReLU, Head, enlarge, initialise, resize
from roadseg.nets.pooling import pooled
from roadseg.nets.pspnet import OverDilated

RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""ASPP's dilations by output stride: V3, section 3.3."""

WIDTH = 256


def _separable(inputs: int, outputs: int, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3, dilated, then pointwise, each with norm and ReLU (V3+, section 3.1)."""
    return nn.Sequential(
        ConvNormReLU(inputs, inputs, 3, dilation=dilation, groups=inputs), ConvNormReLU(inputs, outputs)
    )


def _dilated(inputs: int, outputs: int, dilation: int) -> nn.Sequential:
    return ConvNormReLU(inputs, outputs, 3, dilation=dilation)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (V3, figure 5): a 1x1 convolution, three dilated 3x3 ones and the mean of the
    whole map, 256 channels each, concatenated and brought to 256. Keeps height and width."""

    def __init__(self, inputs: int, rates: tuple[int, ...], *, separable: bool) -> None:
        super().__init__()
        make = _separable if separable else _dilated
        self.scales = nn.ModuleList([ConvNormReLU(inputs, WIDTH), *(make(inputs, WIDTH, rate) for rate in rates)])
        self.whole = ConvNorm(inputs, WIDTH)
        self.fuse = nn.Sequential(ConvNormReLU((len(rates) + 2) * WIDTH, WIDTH), nn.Dropout(0.1))

    def forward(self, features: Tensor) -> Tensor:
        branches = [scale(features) for scale in self.scales]
        branches.append(functional.relu(pooled(features, self.whole)).expand_as(branches[0]))
        fused: Tensor = self.fuse(torch.cat(branches, dim=1))
        return fused


class DeepLabV3(OverDilated):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `depth` of the ResNet: 18, 50, 101. The finest features, and the training head's logits, are at 1/`output_stride`,
    8 or 16.
    """

    def __init__(self, classes: int, depth: int = 101, output_stride: int = 8) -> None:
        backbone = resnet(depth, output_stride)
        pyramid = ASPP(backbone.channels[-1], RATES[output_stride], separable=False)
        super().__init__(backbone, pyramid, nn.Conv2d(WIDTH, classes, 1), classes)


class DeepLabV3Plus(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `depth` of the ResNet: 18, 50, 101. ASPP works at 1/`output_stride`, 8 or 16; the training head's logits are at 1/8.
    """

    def __init__(self, classes: int, depth: int = 50, output_stride: int = 8) -> None:
        super().__init__()
        self.backbone = resnet(depth, output_stride)
        shallow, _, middle, deep = self.backbone.channels
        self.pyramid = ASPP(deep, RATES[output_stride], separable=True)
        # V3+, section 3.1 and table 1: 48 channels of the shallow features, so that they do not outweigh the deep ones.
        self.shallow = ConvNormReLU(shallow, 48)
        self.decoder = nn.Sequential(_separable(WIDTH + 48, WIDTH), _separable(WIDTH, WIDTH))
        self.classifier = nn.Conv2d(WIDTH, classes, 1)
        self.heads = nn.ModuleList([Head(middle, middle // 4, classes)])
        for part in (self.pyramid, self.shallow, self.decoder, self.classifier, self.heads):
            initialise(part)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        shallow, eighth, middle, deep = self.backbone(image)
        coarse = resize(self.pyramid(deep), shallow.shape[-2:])
        fused = self.decoder(torch.cat([coarse, self.shallow(shallow)], dim=1))
        logits = self.classifier(fused)
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        return [logits, *(resize(head(middle), eighth.shape[-2:]) for head in self.heads)]

"""SegFormer: a hierarchical encoder whose four scales are projected, brought to 1/4, concatenated and classified.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", arXiv 2105.15203;
section and table numbers below are the paper's. At 19 classes, in millions of parameters: B0 3.7, B1 13.7, B2 27.4,
B3 47.2, B4 64.0, B5 84.6. The same decoder on other encoders: ResNet-18 11.7, ResNet-50 24.8, Swin-T 28.2.

The encoders are transformers'; the decoder is written here, and with its weights copied gives the logits of
transformers' own model. Dropout is that of the authors' code: whole channels of the fused features.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes. Attention over the
whole image makes the cost grow faster than the area.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.backbones import Backbone, mit, resnet, swin_tiny
from roadseg.nets.blocks import ConvNormReLU, enlarge, initialise, resize

ENCODERS: dict[str, tuple[Callable[[], Backbone], int]] = {
    "b0": (partial(mit, 0), 256),
    "b1": (partial(mit, 1), 256),
    "b2": (partial(mit, 2), 768),
    "b3": (partial(mit, 3), 768),
    "b4": (partial(mit, 4), 768),
    "b5": (partial(mit, 5), 768),
    "r18": (partial(resnet, 18), 256),
    "r50": (partial(resnet, 50), 256),
    "swin_t": (swin_tiny, 256),
}
"""What makes the encoder, and the decoder's channels: table 6 for B0 to B5; for the others those of B1."""


class Decoder(nn.Module):
    """The all-MLP decoder (section 3.2, equation 4): a linear layer for each scale, and one for all of them together.

    Four maps BCHW -> logits at the size of the first. A linear layer over the channels is a 1x1 convolution.

    In training the last layer is applied to each scale before it is enlarged, and the results are added: the same sums
    for a third of the multiply-adds. Otherwise it is the published form, which counts and exports are held against.
    """

    def __init__(self, inputs: tuple[int, ...], hidden: int, classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(channels, hidden, 1) for channels in inputs)
        self.fuse = ConvNormReLU(len(inputs) * hidden, hidden)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(hidden, classes, 1)

    def forward(self, scales: list[Tensor]) -> Tensor:
        size = scales[0].shape[-2:]
        projected = [project(scale) for project, scale in zip(self.projections, scales, strict=True)]
        projected = projected[::-1]  # the coarsest first, as published weights have it
        if self.training:
            conv, norm, relu = self.fuse
            weights = conv.get_parameter("weight").chunk(len(scales), dim=1)
            shares = [resize(functional.conv2d(*pair), size) for pair in zip(projected, weights, strict=True)]
            fused = relu(norm(sum(shares[1:], start=shares[0])))
        else:
            fused = self.fuse(torch.cat([resize(one, size) for one in projected], dim=1))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits


class SegFormer(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of them, here of one, in training mode.

    `encoder`: one of `ENCODERS`.
    """

    def __init__(self, classes: int, encoder: str = "b0") -> None:
        super().__init__()
        make, hidden = ENCODERS[encoder]
        self.backbone = make()
        self.decoder = Decoder(self.backbone.channels, hidden, classes)
        initialise(self.decoder)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        logits = enlarge(self.decoder(self.backbone(image)), image.shape[-2:])
        return [logits] if self.training else logits

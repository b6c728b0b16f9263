"""What the networks of BiSeNet's line share: averages of the whole map, attention refinement, the way up from 1/32 to
1/8, and the fusion with the features that stayed fine.

From Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", arXiv 1808.00897
(sections 3.1 to 3.3, figure 2), as BiSeNetV1 and, with another backbone, STDC-Seg use them.

One departure in all of them: in training, norms see the map before it is pooled to 1x1 (`roadseg.nets.pooling`).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, resize
from roadseg.nets.pooling import Pooled


class AttentionRefinement(nn.Module):
    """ARM (figure 2b): a 3x3 convolution whose channels are each weighed, between 0 and 1, by what the whole map
    averages to. BCHW -> BOHW."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvNormReLU(inputs, outputs, 3)
        self.gate = Pooled(ConvNorm(outputs, outputs))

    def forward(self, features: Tensor) -> Tensor:
        refined = self.conv(features)
        return refined * self.gate(refined).sigmoid()


class ContextNeck(nn.Module):
    """The context path's way up: (features at 1/16, features at 1/32) -> (context at 1/8, context at 1/16), both of
    `CHANNELS` channels. `fine`, the size of 1/8, is height and width as measured.

    The average of the whole map is added at 1/32; a 3x3 convolution follows each enlarging, which is bilinear.
    """

    CHANNELS = 128

    def __init__(self, inputs16: int, inputs32: int) -> None:
        super().__init__()
        self.average = Pooled(ConvNorm(inputs32, self.CHANNELS))
        self.refine32 = AttentionRefinement(inputs32, self.CHANNELS)
        self.refine16 = AttentionRefinement(inputs16, self.CHANNELS)
        self.smooth32 = ConvNormReLU(self.CHANNELS, self.CHANNELS, 3)
        self.smooth16 = ConvNormReLU(self.CHANNELS, self.CHANNELS, 3)

    def forward(self, features16: Tensor, features32: Tensor, fine: tuple[int, int]) -> tuple[Tensor, Tensor]:
        context = self.refine32(features32) + functional.relu(self.average(features32))
        context16 = self.smooth32(resize(context, features16.shape[-2:]))
        context8 = self.smooth16(resize(self.refine16(features16) + context16, fine))
        return context8, context16


class FeatureFusion(nn.Module):
    """FFM (figure 2c): both inputs side by side through a 1x1 convolution, to which its own channels are added once
    more, weighed by what the whole map averages to. Two BCHW of one size -> BOHW.

    `hidden` is the width between the two 1x1 convolutions that find the weights, which have no norm.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int) -> None:
        super().__init__()
        self.mix = ConvNormReLU(inputs, outputs)
        self.squeeze = nn.Conv2d(outputs, hidden, 1, bias=False)
        self.excite = nn.Conv2d(hidden, outputs, 1, bias=False)

    def forward(self, fine: Tensor, context: Tensor) -> Tensor:
        mixed = self.mix(torch.cat([fine, context], dim=1))
        average = functional.adaptive_avg_pool2d(mixed, 1)
        gate = self.excite(functional.relu(self.squeeze(average))).sigmoid()
        return mixed + mixed * gate

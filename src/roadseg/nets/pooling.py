"""Averages over bins of a map, projected: what pyramids and attention make of the whole image.

All of them share one departure from their papers: in training, convolution and norm come before the pooling. After it
the norm would see a handful of numbers a channel, one where the bin is the whole map, and refuse a batch of one image.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, resize


def pooled(features: Tensor, project: nn.Module, bins: int = 1) -> Tensor:
    """`project` and the average over `bins` x `bins` windows: BCHW -> BO(bins)(bins).

    `project` is linear at each position (1x1 convolutions and norms, nothing else), so that evaluation pools first: the
    same function, for the price of `bins`² positions. In training the order matters, because the norm takes its
    statistics from what it sees: there it sees all positions.
    """
    if project.training:
        return functional.adaptive_avg_pool2d(project(features), bins)
    average: Tensor = project(functional.adaptive_avg_pool2d(features, bins))
    return average


class Pooled(nn.Module):
    """`pooled` as a module."""

    def __init__(self, project: nn.Module, bins: int = 1) -> None:
        super().__init__()
        self.project = project
        self.bins = bins

    def forward(self, features: Tensor) -> Tensor:
        return pooled(features, self.project, self.bins)


class PyramidPooling(nn.Module):
    """PSPNet's module (Zhao 2017, section 3.2): averages over 1x1, 2x2, 3x3 and 6x6 bins, a quarter of the channels
    each, beside the input; then a convolution of size `kernel`. BCHW -> BOHW."""

    BINS = (1, 2, 3, 6)

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(ConvNorm(inputs, inputs // len(self.BINS)) for _ in self.BINS)
        self.fuse = ConvNormReLU(2 * inputs, outputs, kernel)

    def forward(self, features: Tensor) -> Tensor:
        levels = [features]
        for bins, project in zip(self.BINS, self.projections, strict=True):
            levels.append(resize(functional.relu(pooled(features, project, bins)), features.shape[-2:]))
        fused: Tensor = self.fuse(torch.cat(levels, dim=1))
        return fused

"""A semantic network in the manner of the YOLO detectors: cross-stage partial backbone, path aggregation, one head.

Of our own making from the papers' ideas, with no code of any detector; "YOLO" names the family of these parts:
- the backbone's stages split their channels, compute on one half and carry the other past: Wang et al. 2019, "CSPNet: A
  New Backbone that can Enhance Learning Capability of CNN", arXiv 1911.11929, figure 2b (fusion last);
- after it, max pooling over 5x5, 9x9 and 13x13 beside the features: YOLOv3-SPP's block (Huang and Wang 2019, arXiv
  1903.08589; after He et al. 2014, arXiv 1406.4729), as a chain of 5x5, which computes the same;
- a neck from coarse to fine and back: Liu et al. 2018, "Path Aggregation Network for Instance Segmentation", arXiv
  1803.01534;
- instead of boxes, the three levels brought to 1/8, concatenated and classified, much as in section 3.1 of Kirillov et
  al. 2019, "Panoptic Feature Pyramid Networks", arXiv 1901.02446, which adds them at 1/4;
- sizes by multiples of width and depth: Wang, Bochkovskiy and Liao 2020, "Scaled-YOLOv4", arXiv 2011.08036;
- the SiLU as activation: Elfwing, Uchibe and Doya 2017, arXiv 1702.03118.

Parameters at 19 classes without the training head: n 1.64 M, s 6.55 M, which is about what YOLO26-sem n and s publish
(1.6 M and 6.5 M; another network, only its size is matched).

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes. Multiples of 32
leave no border that sees padding only.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNorm, Head, enlarge, initialise, resize


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> ConvNorm:
    return ConvNorm(inputs, outputs, kernel, stride=stride, activation=nn.SiLU(inplace=True))


class Residual(nn.Module):
    """Two 3x3 convolutions, added to their input. Keeps the shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_conv(channels, channels, 3), _conv(channels, channels, 3))

    def forward(self, features: Tensor) -> Tensor:
        return features + self.branch(features)


class Partial(nn.Module):
    """A cross-stage partial stage: a 1x1 convolution to half the outputs through `blocks` residual blocks, another to
    the other half past them, both concatenated and mixed by a third. Keeps height and width."""

    def __init__(self, inputs: int, outputs: int, blocks: int) -> None:
        super().__init__()
        half = outputs // 2
        self.through = nn.Sequential(_conv(inputs, half), *[Residual(half) for _ in range(blocks)])
        self.past = _conv(inputs, half)
        self.mix = _conv(2 * half, outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.mix(torch.cat([self.through(features), self.past(features)], dim=1))


class PyramidPooling(nn.Module):
    """The maxima over windows of 5, 9 and 13 positions beside the features. Keeps the shape.

    A 5x5 maximum of 5x5 maxima is that over 9x9, and of these that over 13x13.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = _conv(channels, channels)
        self.mix = _conv(4 * channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        levels = [self.project(features)]
        for _ in range(3):
            levels.append(functional.max_pool2d(levels[-1], 5, stride=1, padding=2))
        return self.mix(torch.cat(levels, dim=1))


class Neck(nn.Module):
    """Features at 1/8, 1/16 and 1/32 -> the same levels with `channels` each, every one informed by the others.

    Down from coarse to fine (a feature pyramid), then from fine to coarse (path aggregation); what meets is
    concatenated.
    """

    def __init__(self, inputs: tuple[int, int, int], channels: int, blocks: int) -> None:
        super().__init__()
        self.lateral8, self.lateral16, self.lateral32 = (_conv(width, channels) for width in inputs)
        self.fine16, self.fine8 = (Partial(2 * channels, channels, blocks) for _ in range(2))
        self.shrink8, self.shrink16 = (_conv(channels, channels, 3, 2) for _ in range(2))
        self.coarse16, self.coarse32 = (Partial(2 * channels, channels, blocks) for _ in range(2))

    def forward(self, at8: Tensor, at16: Tensor, at32: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        at8, at16, at32 = self.lateral8(at8), self.lateral16(at16), self.lateral32(at32)
        at16 = self.fine16(torch.cat([at16, resize(at32, at16.shape[-2:])], dim=1))
        at8 = self.fine8(torch.cat([at8, resize(at16, at8.shape[-2:])], dim=1))
        at16 = self.coarse16(torch.cat([at16, self.shrink8(at8)], dim=1))
        at32 = self.coarse32(torch.cat([at32, self.shrink16(at16)], dim=1))
        return at8, at16, at32


class YOLO(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `width` multiplies the channels, 64 at 1/2 to 1024 at 1/32; `depth` the residual blocks a stage, 2, 2, 4 and 2. The
    defaults are size n. The training head (weight `train.aux_weight`) sits on the backbone at 1/16; its logits
    are at 1/8.
    """

    def __init__(self, classes: int, *, width: float = 0.25, depth: float = 0.5) -> None:
        super().__init__()
        c2, c4, c8, c16, c32 = (round(64 * 2**stage * width) for stage in range(5))
        b4, b8, b16, b32 = (max(1, round(blocks * depth)) for blocks in (2, 2, 4, 2))
        self.stage4 = nn.Sequential(_conv(3, c2, 3, 2), _conv(c2, c4, 3, 2), Partial(c4, c4, b4))
        self.stage8 = nn.Sequential(_conv(c4, c8, 3, 2), Partial(c8, c8, b8))
        self.stage16 = nn.Sequential(_conv(c8, c16, 3, 2), Partial(c16, c16, b16))
        self.stage32 = nn.Sequential(_conv(c16, c32, 3, 2), Partial(c32, c32, b32), PyramidPooling(c32))
        self.neck = Neck((c8, c16, c32), c8, max(1, round(2 * depth)))
        self.fuse = _conv(3 * c8, c8)
        self.classifier = Head(c8, c8, classes)
        self.heads = nn.ModuleList([Head(c16, c8, classes)])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        at8 = self.stage8(self.stage4(image))
        at16 = self.stage16(at8)
        size = at8.shape[-2:]
        levels = self.neck(at8, at16, self.stage32(at16))
        features = self.fuse(torch.cat([resize(level, size) for level in levels], dim=1))
        logits = self.classifier(features)
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        return [logits, *(resize(head(at16), size) for head in self.heads)]


def yolo_s(classes: int) -> YOLO:
    """Size s: twice the channels of size n."""
    return YOLO(classes, width=0.5)

"""PIDNet-S: branches for detail (P), context (I) and boundaries (D), the last deciding which of the others is heard.

Xu, Xiong and Bhattacharyya 2022, "PIDNet: A Real-time Semantic Segmentation Network Inspired by PID Controllers", arXiv
2206.02066; figure numbers below are the paper's. 7.6 M parameters at 19 classes without the training heads.

Departures, all from DDRNet's file for the same reasons: the pyramid's norms come before the pooling and its windows
average inside the border only; the stem's convolutions have no bias, since norms follow them. And a ReLU stands between
the two blocks at 1/64, as in ResNet, where the authors' code has none: its `Bottleneck` leaves the last ReLU out. The
boundaries' loss is the training loop's (`roadseg.losses.boundary`, Dice beside the cross-entropy) and weighs
`train.aux_weight`, where the paper's weighs 20; the paper's fourth loss, cross-entropy where the third branch sees a
boundary, is left out.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes. Multiples of 64
leave no border that sees padding only. Training on one scene alone needs a side above 64: the pyramid norms its map.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, enlarge, initialise, resize
from roadseg.nets.cpu_layers import BatchNorm2d, Sequential
from roadseg.nets.ddrnet import LEVELS, NormConv, Residual, averaged, head, stage


class Guided(nn.Module):
    """PagFM (figure 4): takes from the context what resembles the detail there. Shapes: `detail` BCHW, `context` BChw
    -> BCHW.

    Both are projected to `hidden` channels; the sigmoid of their product over these is the share of the context at each
    position.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.detail = ConvNorm(channels, hidden)
        self.context = ConvNorm(channels, hidden)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        size = detail.shape[-2:]
        alike = self.detail(detail) * resize(self.context(context), size)
        share = torch.sigmoid(alike.sum(dim=1, keepdim=True))
        return detail + share * (resize(context, size) - detail)


class Pyramid(nn.Module):
    """PAPPM (figure 5): DAPPM with its levels beside one another instead of in a chain, so that one grouped 3x3
    convolution serves all. BCHW -> BCHW.

    The departures are those of `roadseg.nets.ddrnet.Pyramid`.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fine = NormConv(inputs, hidden)
        self.norms = nn.ModuleList(Sequential(BatchNorm2d(inputs), nn.ReLU(inplace=True)) for _ in range(LEVELS))
        self.projections = nn.ModuleList(nn.Conv2d(inputs, hidden, 1, bias=False) for _ in range(LEVELS))
        width = LEVELS * hidden
        self.mix = Sequential(
            BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, groups=LEVELS, bias=False),
        )
        self.fuse = NormConv(hidden + width, outputs)
        self.shortcut = NormConv(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        fine = self.fine(features)
        levels = [
            fine + resize(project(averaged(norm(features), level)), features.shape[-2:])
            for level, (norm, project) in enumerate(zip(self.norms, self.projections, strict=True))
        ]
        return self.fuse(torch.cat([fine, self.mix(torch.cat(levels, dim=1))], dim=1)) + self.shortcut(features)


class Fusion(nn.Module):
    """Light-Bag (figure 6): the context inside regions, the detail on boundaries, by the sigmoid of the D branch. All
    BCHW."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.detail = ConvNorm(channels, channels)
        self.context = ConvNorm(channels, channels)

    def forward(self, detail: Tensor, context: Tensor, boundary: Tensor) -> Tensor:
        edge = torch.sigmoid(boundary)
        return self.detail(detail + (1 - edge) * context) + self.context(context + edge * detail)


class PIDNetS(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    The branches are named p, i and d as in the paper; i's stages by their stride. p and d stay at 1/8. The training
    heads give logits at 1/8: classes from p after its first exchange (paper: weight 0.4), then one channel, the
    boundaries, from d after its second (paper: 20 times its weighted binary cross entropy).
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvNormReLU(3, 32, 3, stride=2), ConvNormReLU(32, 32, 3, stride=2),
            stage(32, 32), nn.ReLU(inplace=True), stage(32, 64, 2), nn.ReLU(inplace=True),
        )  # fmt: skip
        self.i16, self.i32 = stage(64, 128, 2, 3), stage(128, 256, 2, 3)
        self.i64 = nn.Sequential(Residual(256, 256, 2, wide=True), nn.ReLU(inplace=True), Residual(512, 256, wide=True))
        self.p3, self.p4, self.p5 = stage(64, 64), stage(64, 64), Residual(64, 64, wide=True)
        self.d3, self.d4, self.d5 = Residual(64, 32), Residual(32, 32, wide=True), Residual(64, 64, wide=True)
        self.to_p3, self.to_p4 = ConvNorm(128, 64), ConvNorm(256, 64)
        self.guide3, self.guide4 = Guided(64, 32), Guided(64, 32)
        self.to_d3, self.to_d4 = ConvNorm(128, 32, 3), ConvNorm(256, 64, 3)
        self.pyramid = Pyramid(512, 96, 128)
        self.fusion = Fusion(128)
        self.classifier = head(128, 128, classes)
        self.heads = nn.ModuleList([head(64, 128, classes), head(64, 32, 1)])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        shared = self.stem(image)
        size = shared.shape[-2:]

        i = relu(self.i16(shared))
        p = self.guide3(self.p3(shared), self.to_p3(i))
        d = self.d3(shared) + resize(self.to_d3(i), size)
        early = p

        i = relu(self.i32(i))
        p = self.guide4(self.p4(relu(p)), self.to_p4(i))
        d = self.d4(relu(d)) + resize(self.to_d4(i), size)
        edges = d

        i = resize(self.pyramid(self.i64(i)), size)
        features = self.fusion(self.p5(relu(p)), i, self.d5(relu(d)))
        logits = self.classifier(features)
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        classes_head, edges_head = self.heads
        return [logits, classes_head(early), edges_head(edges)]

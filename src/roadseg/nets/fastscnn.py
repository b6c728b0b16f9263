"""Fast-SCNN: one shallow path to 1/8, a deep one from there to 1/32, added and classified.

Poudel et al. 2019, "Fast-SCNN: Fast Semantic Segmentation Network", arXiv 1902.04502; table and section numbers below
are the paper's. 1.1 M parameters at 19 classes without the training heads.

Departures: the pyramid's norms see the map before it is pooled (`roadseg.nets.pooling`); the logits of the training
heads are at 1/8.

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 32
leave no border that sees padding only.
"""

from torch import Tensor, nn

from roadseg.nets.blocks import ConvNorm, ConvNormReLU, Head, enlarge, initialise, resize
from roadseg.nets.cpu_layers import Dropout, Sequential
from roadseg.nets.pooling import PyramidPooling


class Separable(nn.Sequential):
    """The paper's DSConv: depthwise 3x3 with norm, then pointwise with norm and ReLU. Section 3.2.1 leaves out the
    nonlinearity between the two, and so does PaddleSeg's code; Tramac's Fast-SCNN-pytorch has a ReLU there."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            ConvNorm(inputs, inputs, 3, stride=stride, groups=inputs),
            ConvNormReLU(inputs, outputs),
        )


class Bottleneck(nn.Module):
    """Table 2, MobileNetV2's inverted residual: 1x1 up by six, depthwise 3x3, linear 1x1 down; added to its input
    where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 6 * inputs
        self.residual = stride == 1 and inputs == outputs
        self.branch = Sequential(
            ConvNormReLU(inputs, hidden),
            ConvNormReLU(hidden, hidden, 3, stride=stride, groups=hidden),
            ConvNorm(hidden, outputs),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.branch(features, shortcut=features) if self.residual else self.branch(features)


class Fusion(nn.Module):
    """Table 3: the deep features, brought up and through a depthwise convolution of dilation 4, plus the shallow
    ones."""

    def __init__(self, shallow: int, deep: int, outputs: int) -> None:
        super().__init__()
        self.deep = Sequential(
            ConvNormReLU(deep, deep, 3, dilation=4, groups=deep),
            ConvNorm(deep, outputs),
        )
        self.shallow = ConvNorm(shallow, outputs)
        self.activation = nn.ReLU()

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        passed = self.shallow(shallow)
        return self.deep(resize(deep, shallow.shape[-2:]), shortcut=passed, activation=self.activation)


def _bottlenecks(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Three bottlenecks, the first with the stride: a row of table 1."""
    return nn.Sequential(
        Bottleneck(inputs, outputs, stride), Bottleneck(outputs, outputs, 1), Bottleneck(outputs, outputs, 1)
    )


class FastSCNN(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    The training heads sit at the end of both paths (section 4.1; weight `train.aux_weight`); their logits are
    at 1/8.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(ConvNormReLU(3, 32, 3, stride=2), Separable(32, 48, 2), Separable(48, 64, 2))
        self.context = nn.Sequential(
            _bottlenecks(64, 64, 2), _bottlenecks(64, 96, 2), _bottlenecks(96, 128, 1), PyramidPooling(128, 128, 1)
        )
        self.fusion = Fusion(64, 128, 128)
        self.classifier = nn.Sequential(
            Separable(128, 128), Separable(128, 128), Dropout(0.1), nn.Conv2d(128, classes, 1)
        )
        self.heads = nn.ModuleList([Head(64, 32, classes), Head(128, 32, classes)])
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        shallow = self.downsample(image)
        deep = self.context(shallow)
        logits = self.classifier(self.fusion(shallow, deep))
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        shallow_head, deep_head = self.heads
        return [logits, shallow_head(shallow), resize(deep_head(deep), shallow.shape[-2:])]

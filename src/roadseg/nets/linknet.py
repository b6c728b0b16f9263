"""LinkNet: a ResNet encoder; what each of its stages is given is added to what the decoder of that stage gives.

Chaurasia and Culurciello 2017, "LinkNet: Exploiting Encoder Representations for Efficient Semantic Segmentation", arXiv
1707.03718; figure and table numbers below are the paper's. At 19 classes 11.5 M parameters on ResNet-18 (the paper's)
and 21.6 M on ResNet-34.

Input: any height and width from 64 up. Strides divide upwards, so that a doubled map is some rows or columns too large,
which are cut off. Multiples of 32 lose nothing.
"""

from itertools import pairwise

from torch import Size, Tensor, nn

from roadseg.nets.backbones import resnet
from roadseg.nets.blocks import ConvNormReLU, initialise
from roadseg.nets.cpu_layers import BatchNorm2d, BiasedConvTranspose2d, Sequential


def _doubled(inputs: int, outputs: int) -> nn.Sequential:
    """The paper's full convolution: transposed 3x3, stride 2, with norm and ReLU. Doubles height and width."""
    conv = nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=False)
    return Sequential(conv, BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _decoder(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Figure 3: 1x1 down to a quarter, 3x3 at the target size, 1x1 to the outputs. Table 1 has the channels.

    The first stage's keeps the size: with stride 1 a transposed 3x3 convolution is a 3x3 convolution.
    """
    hidden = inputs // 4
    middle = _doubled(hidden, hidden) if stride == 2 else ConvNormReLU(hidden, hidden, 3)
    return nn.Sequential(ConvNormReLU(inputs, hidden), middle, ConvNormReLU(hidden, outputs))


def _cut(features: Tensor, size: Size) -> Tensor:
    return features[..., : size[0], : size[1]]


class LinkNet(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of them, here of one, in training mode.

    `depth` of the ResNet: 18 or 34.
    """

    def __init__(self, classes: int, depth: int = 18) -> None:
        super().__init__()
        self.backbone = resnet(depth, stem=True)
        # From the deepest on: each brings its stage's channels and size back to those that the stage was given.
        stages = list(pairwise(self.backbone.channels))[::-1]
        self.decoders = nn.ModuleList(
            _decoder(outputs, inputs, 1 if outputs == inputs else 2) for inputs, outputs in stages
        )
        self.fine = nn.Sequential(_doubled(64, 32), ConvNormReLU(32, 32, 3))
        self.classifier = BiasedConvTranspose2d(32, classes, 2, stride=2)
        for part in (self.decoders, self.fine, self.classifier):
            initialise(part)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        *skips, features = self.backbone(image)
        for decoder in self.decoders:
            skip = skips.pop()
            features = _cut(decoder(features), skip.shape[-2:]) + skip
        features = self.fine(features)
        logits = _cut(self.classifier(features), image.shape[-2:])
        return [logits] if self.training else logits

"""FCN: the plain encoder-decoder that others are measured against: convolutions and max pooling down, the mirror
image up.

After Long, Shelhamer and Darrell 2014, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, in
the form of course reports, which has no published count: no VGG, one convolution a level, every level of the way down
mirrored on the way up. `skip`, `dropout` and `dilation` are what such reports vary. 5.5 M parameters at 19 classes,
whatever the arguments.

The way up resizes and convolves instead of transposed convolutions, which leave checkerboards and give even sizes only.

Input: any height and width from 64 up: pooling rounds upwards and resizing goes to measured sizes.
"""

from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNormReLU, initialise, resize

WIDTHS = (32, 64, 128, 256, 512)
"""Channels before each of the five max poolings, so at 1/1 to 1/16."""


class FCN(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of them, only one, in training mode.

    `skip`: each level of the way up adds the features that the way down had at its size (as FCN-8s does with two);
    added, not concatenated, so that with and without are networks of the same size. `dropout`: the probability of a
    channel of the deepest features, at 1/32, and of the classifier's input to be zero in training. `dilation`: of the
    convolution at 1/32.
    """

    def __init__(self, classes: int, *, skip: bool = True, dropout: float = 0.0, dilation: int = 1) -> None:
        super().__init__()
        self.skip = skip
        self.down = nn.ModuleList(
            ConvNormReLU(inputs, outputs, 3) for inputs, outputs in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        self.middle = nn.Sequential(ConvNormReLU(WIDTHS[-1], WIDTHS[-1], 3, dilation=dilation), nn.Dropout2d(dropout))
        self.up = nn.ModuleList(
            ConvNormReLU(inputs, outputs, 3)
            for inputs, outputs in zip(WIDTHS[::-1], (*WIDTHS[-2::-1], WIDTHS[0]), strict=True)
        )
        self.classifier = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(WIDTHS[0], classes, 1))
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        features, passed = image, []
        for level in self.down:
            passed.append(level(features))
            features = functional.max_pool2d(passed[-1], 2, ceil_mode=True)
        features = self.middle(features)
        for level, given in zip(self.up, reversed(passed), strict=True):
            features = resize(features, given.shape[-2:])
            features = level(features + given if self.skip else features)
        logits = self.classifier(features)
        return [logits] if self.training else logits

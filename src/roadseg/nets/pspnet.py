"""PSPNet: a dilated ResNet whose features are averaged over 1, 2, 3 and 6 bins a side, beside themselves.

Zhao et al. 2017, "Pyramid Scene Parsing Network", arXiv 1612.01105; section numbers below are the paper's. At 19
classes without the training head, in millions of parameters: ResNet-18 12.6, 50 46.6, 101 65.6. PaddleSeg's is larger:
its last 3x3 convolution has twice the channels (`hidden` 1024), and it counts the training head.

Departures: the norm of the pooled features comes before the pooling in training, since one bin of one image is one
number a channel; the ResNet has one 7x7 convolution at its start, where the authors' has three of 3x3.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes.
"""

from torch import Tensor, nn

from roadseg.nets.backbones import Backbone, resnet
from roadseg.nets.blocks import Head, enlarge, initialise
from roadseg.nets.pooling import PyramidPooling


class OverDilated(nn.Module):
    """What PSPNet and DeepLabV3 are alike in: a dilated ResNet, a pyramid over its last features, a classifier, and a
    training head on the third stage (PSPNet, section 4.1; weight `train.aux_weight`).

    Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode. The
    training head's logits are at the size of the features.
    """

    def __init__(self, backbone: Backbone, pyramid: nn.Module, classifier: nn.Module, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = pyramid
        self.classifier = classifier
        middle = backbone.channels[2]
        self.heads = nn.ModuleList([Head(middle, middle // 4, classes)])
        for part in (self.pyramid, self.classifier, self.heads):
            initialise(part)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        _, _, middle, deep = self.backbone(image)
        logits = self.classifier(self.pyramid(deep))
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        return [logits, *(head(middle) for head in self.heads)]


class PSPNet(OverDilated):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `depth` of the ResNet: 18, 50, 101. `hidden`: channels before the classifier; None is a quarter of the ResNet's, the
    authors' 512 for 50 and 101. Features, and the training head's logits, are at 1/8.
    """

    def __init__(self, classes: int, depth: int = 101, hidden: int | None = None) -> None:
        backbone = resnet(depth, output_stride=8)
        deep = backbone.channels[-1]
        hidden = hidden or deep // 4
        # Pooling before the projection in evaluation: else the projections are 6 % of ResNet-101's multiply-adds.
        pyramid = PyramidPooling(deep, hidden, 3)
        super().__init__(backbone, pyramid, nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(hidden, classes, 1)), classes)

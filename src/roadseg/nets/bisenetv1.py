"""BiSeNetV1: a shallow path that keeps 1/8 of the resolution beside a ResNet-18 that sees the whole scene.

Yu et al. 2018, "BiSeNet: Bilateral Segmentation Network for Real-time Semantic Segmentation", arXiv 1808.00897; section
numbers below are the paper's, layers those of the authors' code (TorchSeg). 13.3 M parameters at 19 classes without the
training heads; the code read for this has nothing near the paper's 49.0 M.

The main head is `hidden` channels wide: 256 as in CoinCheung's implementation, which RDRNet's counts are of. The
authors' code has 64, for 0.4 M parameters and an eighth of the work less.

Departures: norms see the map before it is pooled to 1x1 (`roadseg.nets.bilateral`); the training heads are 64 channels
wide, as CoinCheung's, where the authors' are 256, their logits come at 1/8, and their losses weigh
`train.aux_weight`, where the paper has 1 (section 3.4: alpha).

Input: any height and width from 32 up; strides divide upwards and resizing goes to measured sizes. Multiples of 32
leave no border that sees padding only.
"""

from torch import Tensor, nn

from roadseg.nets.backbones import resnet
from roadseg.nets.bilateral import ContextNeck, FeatureFusion
from roadseg.nets.blocks import ConvNormReLU, Head, enlarge, initialise, resize


class BiSeNetV1(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of smaller, main first, in training mode.

    `spatial` is the spatial path (section 3.1), `backbone` and `neck` are the context path (section 3.2). The training
    heads (section 3.4) sit on the context at 1/8 and at 1/16; their logits are at 1/8.
    """

    def __init__(self, classes: int, *, hidden: int = 256) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            ConvNormReLU(3, 64, 7, stride=2),
            ConvNormReLU(64, 64, 3, stride=2),
            ConvNormReLU(64, 64, 3, stride=2),
            ConvNormReLU(64, 128),
        )
        self.neck = ContextNeck(256, 512)
        context = ContextNeck.CHANNELS
        self.fusion = FeatureFusion(128 + context, 256, 256)
        self.classifier = Head(256, hidden, classes)
        self.heads = nn.ModuleList([Head(context, 64, classes), Head(context, 64, classes)])
        initialise(self)
        self.backbone = resnet(18)  # after `initialise`: it comes initialised in transformers' own way

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        fine = self.spatial(image)
        size8 = fine.shape[-2:]
        *_, middle, deep = self.backbone(image)
        context8, context16 = self.neck(middle, deep, size8)
        logits = self.classifier(self.fusion(fine, context8))
        if not self.training:
            return enlarge(logits, image.shape[-2:])
        head8, head16 = self.heads
        return [logits, head8(context8), resize(head16(context16), size8)]

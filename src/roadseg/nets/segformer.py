"""SegFormer: a hierarchical encoder whose four scales are projected, brought to 1/4, mixed and classified.

Xie et al. 2021, "SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers", arXiv 2105.15203;
section and table numbers below are the paper's. At 19 classes, in millions of parameters: B0 3.7, B1 13.7, B2 27.4,
B3 47.2, B4 64.0, B5 84.6. The same decoder on other encoders: ResNet-18 11.7, ResNet-50 24.8, Swin-T 28.2.

The encoders are transformers'; the decoder is written here, and with its weights copied gives the logits of
transformers' own model. Dropout is that of the authors' code: whole channels of the fused features.

Input: any height and width from 64 up; strides divide upwards and resizing goes to measured sizes. Attention over the
whole image makes the cost grow faster than the area.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

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

    Published, the last one is applied to the enlarged scales side by side. Both are linear, and so is enlarging: here
    the two are one layer, which each scale goes through at its own size, and the results are added. That is the same
    function of the same parameters, for 40 % of the whole B2's multiply-adds. Hooks on the projections and the
    convolution of `fuse` do not fire: their weights alone are used.
    """

    def __init__(self, inputs: tuple[int, ...], hidden: int, classes: int) -> None:
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(channels, hidden, 1) for channels in inputs)
        self.fuse = ConvNormReLU(len(inputs) * hidden, hidden)
        self.dropout = nn.Dropout2d(0.1)
        self.classifier = nn.Conv2d(hidden, classes, 1)

    def forward(self, scales: list[Tensor]) -> Tensor:
        size = scales[0].shape[-2:]
        projections = cast("Iterable[nn.Conv2d]", self.projections)
        mixing, norm, relu = cast("tuple[nn.Conv2d, nn.Module, nn.Module]", tuple(self.fuse))
        shares = mixing.weight.flatten(1).chunk(len(scales), dim=1)
        first, *others = [
            resize(functional.conv2d(scale, *_composed(projection, share)), size)
            for scale, projection, share in zip(scales, projections, reversed(shares), strict=True)
        ]  # the coarsest has the first share, as published weights have it
        fused = relu(norm(sum(others, start=first)))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits


def _composed(projection: nn.Conv2d, share: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and bias of the 1x1 convolution that is `projection` and, after it, the matrix `share`.

    The weights are channels last in memory, and so is what they give: a CPU resizes that six times as fast.
    """
    assert projection.bias is not None
    weights = share @ projection.weight.flatten(1)
    return weights[:, None, None].permute(0, 3, 1, 2), share @ projection.bias


class SegFormer(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a smaller one, in a list, in training mode.

    `encoder`: one of `ENCODERS`; raises ValueError for any other.
    """

    def __init__(self, classes: int, encoder: str = "b0") -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"encoder must be in {[*ENCODERS]}: {encoder}")
        make, hidden = ENCODERS[encoder]
        self.backbone = make()
        self.decoder = Decoder(self.backbone.channels, hidden, classes)
        initialise(self.decoder)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        logits = self.decoder(self.backbone(image))
        return [logits] if self.training else enlarge(logits, image.shape[-2:])

"""The pieces that the networks share: a convolution with its norm, bilinear resizing, a prediction head,
initialisation.

Tensors are float BCHW throughout.
"""

from typing import Literal

from torch import Size, Tensor, nn
from torch.nn import functional

from roadseg.nets.cpu_layers import BatchNorm2d, DepthwiseConv2d, Sequential


class ConvNorm(Sequential):
    """Convolution without bias, batch norm and, unless `activation` is None, an activation. "Same" padding for odd
    kernels, so that stride 2 halves a size upwards: ceil(n / 2)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        conv: nn.Conv2d
        if 1 < groups == inputs:
            conv = DepthwiseConv2d(inputs, outputs, kernel, stride=stride, dilation=dilation)
        else:
            padding = dilation * (kernel // 2)
            conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False)
        super().__init__(conv, BatchNorm2d(outputs), *([] if activation is None else [activation]))


class ConvNormReLU(ConvNorm):
    """`ConvNorm` with a ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1, groups: int = 1
    ) -> None:
        relu = nn.ReLU(inplace=True)
        super().__init__(inputs, outputs, kernel, stride=stride, dilation=dilation, groups=groups, activation=relu)


class Head(nn.Sequential):
    """Class logits from features: 3x3 convolution, norm, ReLU, 1x1 convolution with bias. Keeps height and width."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__(ConvNormReLU(inputs, hidden, 3), nn.Conv2d(hidden, classes, 1))


def resize(features: Tensor, size: Size | tuple[int, int]) -> Tensor:
    """`features` bilinearly at `size` = (height, width), pixel centres aligned (`align_corners=False`).

    Nothing is done where the size is right already: a resize to 1x1 would export another coordinate mode.
    """
    if features.shape[-2:] == tuple(size):
        return features
    return functional.interpolate(features, size=tuple(size), mode="bilinear", align_corners=False)


def enlarge(logits: Tensor, size: Size | tuple[int, int]) -> Tensor:
    """`resize` for what is compared pixel by pixel: class by class in memory, whatever the order of the features.

    A softmax over a few classes that lie side by side in memory takes 1.6 times as long on a CPU.
    """
    return resize(logits.contiguous(), size)


def initialise(net: nn.Module) -> None:
    """Sets every weight of `net`, in place, from torch's global random state.

    Kaiming's normal (He 2015) over the fan-in, which, unlike the fan-out, torch also counts rightly for depthwise
    convolutions; of transposed ones it takes the outputs for the inputs, and so do we. Those with a bias, classifiers
    for the most part, get gain 1: no ReLU follows a classifier, and training starts near uniform class probabilities.
    """
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nonlinearity: Literal["relu", "linear"] = "relu" if module.bias is None else "linear"
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity=nonlinearity)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)

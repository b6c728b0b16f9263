"""ENet: a small encoder-decoder of bottlenecks that remembers where its maxima were.

Paszke et al. 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation", arXiv 1606.02147;
section and table numbers below are the paper's. 0.37 M parameters at 19 classes.

Max unpooling is done with a mask of the maxima instead of their indices. The result is the same, except that equal
maxima of one 2x2 window all get the value. Indices mean a scatter: with one, OpenVINO took 277 ms an image of 144x288
where it takes 39 ms with the mask (1 thread, AMD Zen 3), and on a GPU a scatter is not deterministic.

Input: any height and width. The encoder halves three times, so sizes that are not a multiple of 8 are padded up to one
with zeros (the mean colour) and the logits cropped back; multiples of 8 pay nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.blocks import ConvNorm, initialise
from roadseg.nets.cpu_layers import BatchNorm2d, BiasedConvTranspose2d, PReLU, Sequential

STRIDE = 8


class Initial(nn.Module):
    """Figure 2a: 13 filters of 3x3 and stride 2 beside the image's own 3 channels, max-pooled. B3HW ->
    B16(H/2)(W/2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 13, 3, stride=2, padding=1, bias=False)
        self.norm = BatchNorm2d(16)
        self.activation = PReLU(16)

    def forward(self, image: Tensor) -> Tensor:
        pooled = _pooled(image) if self.training else functional.max_pool2d(image, 2)
        filtered = self.conv(image)
        features = torch.cat([filtered, pooled.to(filtered.dtype)], dim=1)  # autocast would norm float32
        return self.activation(self.norm(features))


def _pooled(image: Tensor) -> Tensor:
    """`max_pool2d(image, 2)`, which takes ten times as long on a CPU, channels last in memory."""
    rows = torch.maximum(image[..., ::2, :], image[..., 1::2, :])
    return torch.maximum(rows[..., ::2], rows[..., 1::2])


def _reduced(inputs: int, hidden: int, kernel: int = 1, stride: int = 1) -> ConvNorm:
    return ConvNorm(inputs, hidden, kernel, stride=stride, activation=PReLU(hidden))


class Bottleneck(nn.Module):
    """Figure 2b: 1x1 down to a quarter of the channels, a middle convolution, 1x1 up, dropout, added to the input.

    The middle is 3x3, 3x3 dilated, or, where `asymmetric`, 5x1 followed by 1x5. Keeps the shape.
    """

    def __init__(self, channels: int, dropout: float, *, dilation: int = 1, asymmetric: bool = False) -> None:
        super().__init__()
        hidden = channels // 4
        middle: list[nn.Module] = [nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation, bias=False)]
        if asymmetric:
            middle = [
                nn.Conv2d(hidden, hidden, (5, 1), padding=(2, 0), bias=False),
                nn.Conv2d(hidden, hidden, (1, 5), padding=(0, 2), bias=False),
            ]
        self.branch = Sequential(
            _reduced(channels, hidden),
            *middle,
            BatchNorm2d(hidden),
            PReLU(hidden),
            ConvNorm(hidden, channels),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.activation = PReLU(channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.branch(features, shortcut=features, dropout=self.dropout, activation=self.activation)


class Down(nn.Module):
    """A bottleneck that halves the size: its first projection is 2x2 with stride 2; the input goes by max pooling,
    its new channels zero. Also returns the mask of the maxima, for `Up`."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        hidden = outputs // 4
        self.extra = outputs - inputs
        self.branch = Sequential(
            nn.Conv2d(inputs, hidden, 2, stride=2, bias=False),
            BatchNorm2d(hidden),
            PReLU(hidden),
            _reduced(hidden, hidden, 3),
            ConvNorm(hidden, outputs),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.activation = PReLU(outputs)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled = functional.max_pool2d(features, 2)
        # 1 or 0 in the features' own type: torch is slow at multiplying by bools
        maxima = functional.interpolate(pooled.detach(), scale_factor=2.0, mode="nearest").le_(features.detach())
        padded = functional.pad(pooled, (0, 0, 0, 0, 0, self.extra))
        return self.branch(features, shortcut=padded, dropout=self.dropout, activation=self.activation), maxima


class Up(nn.Module):
    """A bottleneck that doubles the size: a transposed 3x3 convolution in the branch; the input goes by a 1x1
    convolution and is put back where its `Down` had found the maxima (max unpooling), zero elsewhere."""

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        hidden = outputs // 4
        self.main = ConvNorm(inputs, outputs)
        self.branch = Sequential(
            _reduced(inputs, hidden),
            nn.ConvTranspose2d(hidden, hidden, 3, stride=2, padding=1, output_padding=1, bias=False),
            BatchNorm2d(hidden),
            PReLU(hidden),
            ConvNorm(hidden, outputs),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.activation = PReLU(outputs)

    def forward(self, features: Tensor, maxima: Tensor) -> Tensor:
        unpooled = functional.interpolate(self.main(features), scale_factor=2.0, mode="nearest") * maxima
        return self.branch(features, shortcut=unpooled, dropout=self.dropout, activation=self.activation)


def _context(dropout: float) -> nn.Sequential:
    """Table 1, bottlenecks 2.1 to 2.8: plain, dilated and asymmetric in turn, the dilation doubling up to 16."""
    return nn.Sequential(
        Bottleneck(128, dropout),
        Bottleneck(128, dropout, dilation=2),
        Bottleneck(128, dropout, asymmetric=True),
        Bottleneck(128, dropout, dilation=4),
        Bottleneck(128, dropout),
        Bottleneck(128, dropout, dilation=8),
        Bottleneck(128, dropout, asymmetric=True),
        Bottleneck(128, dropout, dilation=16),
    )


class ENet(nn.Module):
    """Float32 B3HW, normalised -> logits BCHW at the input's size; a list of them, main first, in training mode."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.initial = Initial()
        # Section 4: spatial dropout of 0.01 before bottleneck 2.0, of 0.1 from there on.
        self.down1 = Down(16, 64, 0.01)
        self.stage1 = nn.Sequential(*[Bottleneck(64, 0.01) for _ in range(4)])
        self.down2 = Down(64, 128, 0.1)
        self.stage2 = _context(0.1)
        self.stage3 = _context(0.1)
        self.up4 = Up(128, 64, 0.1)
        self.stage4 = nn.Sequential(Bottleneck(64, 0.1), Bottleneck(64, 0.1))
        self.up5 = Up(64, 16, 0.1)
        self.stage5 = Bottleneck(16, 0.1)
        # Section 3: no unpooling here, since the initial block pooled 3 channels and the output has `classes`.
        self.classifier = BiasedConvTranspose2d(16, classes, 3, stride=2, padding=1, output_padding=1)
        initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        height, width = image.shape[-2:]
        if height % STRIDE or width % STRIDE:
            image = functional.pad(image, (0, -width % STRIDE, 0, -height % STRIDE))
        features, maxima1 = self.down1(self.initial(image))
        features, maxima2 = self.down2(self.stage1(features))
        features = self.stage3(self.stage2(features))
        features = self.stage4(self.up4(features, maxima2))
        features = self.stage5(self.up5(features, maxima1))
        logits = self.classifier(features)[..., :height, :width]
        return [logits] if self.training else logits

"""Layers whose gradients torch computes slowly on a CPU, channels last: in training they compute the same otherwise.

Each is torch's layer with torch's weights and names, and torch's own computation wherever it does not train, or not on
a CPU, or not channels last, so that what is exported, timed and deployed does not know of this file. An infinite
feature may become no number where torch leaves it infinite; training goes back from both.

Milliseconds, forwards and backwards, of a batch of 4 on one thread of an AMD EPYC, family 26 (AVX512-BF16), torch
2.13.0:

| layer | why torch's is slow | CxHxW | torch's | here |
|---|---|---|---|---|
| `PReLU` | its loops are as short as there are channels | 64x90x120, bfloat16 | 17 | 6 |
| `DepthwiseConv2d`, stride 2 | bfloat16 has a reference loop alone; float32 is used | 384x45x60, bfloat16 | 30 | 3 |
| `DepthwiseConv2d`, dilation 4 | no fast gradient; space to batch, then undilated | 128x45x60, bfloat16 | 35 | 12 |
| `BiasedConvTranspose2d` | its bias's sum over all pixels; it is added apart | 11x360x480, bfloat16 | 42 | 17 |
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PReLU(nn.PReLU):
    """x where it is positive, a slope times x elsewhere; BCHW. With one slope for all channels it is torch's always."""

    def forward(self, features: Tensor) -> Tensor:
        if not _trains_on_cpu(self, features) or self.num_parameters != features.shape[1]:
            return super().forward(features)
        if torch.is_autocast_enabled("cpu") and features.dtype != torch.float64:  # as autocast does with torch's
            features = features.to(torch.get_autocast_dtype("cpu"))
        result: Tensor = _PReLU.apply(features, self.weight)
        return result


class _PReLU(torch.autograd.Function):
    """Over rows of pixels, [B H, W C], with the slopes repeated for each pixel of a row: loops are W C long."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, slope_C: Tensor) -> Tensor:
        ctx.save_for_backward(features, slope_C)
        rows, slope = _rows(features), slope_C.to(features.dtype).repeat(features.shape[3])
        return _pixels(torch.lerp(rows.clamp_min(0), rows, slope), features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        features, slope_C = ctx.saved_tensors
        rows, gradient = _rows(features), _rows(gradients[0])
        slope = slope_C.to(features.dtype).repeat(features.shape[3])
        of_positive = torch.ops.aten.threshold_backward(gradient, rows, 0)  # the gradient where x > 0, else 0
        of_features = _pixels(torch.lerp(of_positive, gradient, slope), features)
        of_slope = (gradient * rows.clamp_max(0)).sum(dim=0, dtype=slope_C.dtype)
        return of_features, of_slope.view(features.shape[3], -1).sum(dim=0)


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel for itself, without bias, "same" padding; the kernel is odd.

    Where there are more outputs than inputs, each channel has as many of its own.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> None:
        if kernel % 2 == 0:
            raise ValueError(f"`kernel` (={kernel}) must be odd")
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups=inputs, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        (stride, _), (dilation, _), (height, width) = self.stride, self.dilation, features.shape[2:]
        if not _trains_on_cpu(self, features):
            return super().forward(features)
        if stride > 1 and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(features.float()).to(torch.get_autocast_dtype("cpu"))
        if stride > 1 or dilation == 1 or min(height, width) < 2 * dilation:  # maps of a pixel or two: mostly padding
            return super().forward(features)
        sides = [size // 2 for size in self.kernel_size]
        convolved = functional.conv2d(
            _space_to_batch(features, dilation), self.weight, padding=sides, groups=self.groups
        )
        whole = _batch_to_space(convolved, dilation)[..., :height, :width]
        return whole.contiguous(memory_format=torch.channels_last)  # a norm takes longer with a cropped map


class BiasedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that adds its bias afterwards."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.bias is None or output_size is not None or not _trains_on_cpu(self, features):
            return super().forward(features, output_size)
        assert isinstance(self.padding, tuple)  # torch's annotation is of all convolutions
        made = functional.conv_transpose2d(
            features, self.weight, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
        return made + self.bias.to(made.dtype)[:, None, None]


def _trains_on_cpu(layer: nn.Module, features: Tensor) -> bool:
    """With features that are channels last."""
    return layer.training and torch.is_grad_enabled() and features.device.type == "cpu" and features.stride(1) == 1


def _rows(features: Tensor) -> Tensor:
    """BCHW -> [B H, W C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 1).flatten(1)


def _pixels(rows: Tensor, like: Tensor) -> Tensor:
    """[B H, W C] -> BCHW, channels last in memory."""
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _space_to_batch(features: Tensor, step: int) -> Tensor:
    """BCHW -> [step step B, C, H / step, W / step]: every `step`-th pixel, zeros where sizes do not divide."""
    padded = functional.pad(features, (0, -features.shape[3] % step, 0, -features.shape[2] % step))
    split = padded.permute(0, 2, 3, 1).unflatten(2, (-1, step)).unflatten(1, (-1, step))  # B h step w step C
    return split.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def _batch_to_space(maps: Tensor, step: int) -> Tensor:
    """`_space_to_batch` undone, its padding kept."""
    split = maps.permute(0, 2, 3, 1).unflatten(0, (step, step, -1))  # step step B h w C
    return split.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

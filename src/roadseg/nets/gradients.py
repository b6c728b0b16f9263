"""Layers whose gradients torch is slow at on a CPU, channels last: while they train, they compute the same otherwise.

Each is torch's layer with torch's weights and names, and torch's own computation wherever it does not train, so that
what is exported, timed and deployed does not know of this file. Milliseconds forwards and backwards below are of one
thread, an AMD EPYC of family 26 with AVX512-BF16, torch 2.13.0, batches of 4.

- `PReLU`: torch goes over its slopes a few channels at a time. 64x90x120 in bfloat16 17.5 before, 5.6 now.
- `DepthwiseConv2d`: with a stride, bfloat16's gradient is computed by a reference loop, float32's is not: 384x45x60 at
  stride 2 30 before, 3 now. With a dilation there is no fast gradient at all; the pixels that such a convolution brings
  together are laid side by side, where an undilated one does it: 128x45x60 at dilation 4 35 before, 12 now.
- `ConvTranspose2d`: its bias, added apart: ENet's, 11 classes at 360x480, 42 before, 17 now.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class PReLU(nn.PReLU):
    """x where it is positive, a slope times x elsewhere; BCHW, a slope a channel."""

    def forward(self, features: Tensor) -> Tensor:
        if _slow(self, features) and features.is_contiguous(memory_format=torch.channels_last):
            result: Tensor = _PReLU.apply(features, self.weight)
            return result
        return super().forward(features)


class _PReLU(torch.autograd.Function):
    """Over rows of pixels, [B H, W C], which the slopes of all their pixels are repeated for."""

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
        of_slope = ((gradient - of_positive) * rows).sum(dim=0, dtype=torch.float32)
        of_features = _pixels(torch.lerp(of_positive, gradient, slope), features)
        return of_features, of_slope.view(features.shape[3], -1).sum(dim=0).to(slope_C.dtype)


class DepthwiseConv2d(nn.Conv2d):
    """A convolution of each channel for itself, with a stride or a dilation: odd kernel, "same" padding."""

    def forward(self, features: Tensor) -> Tensor:
        if not _slow(self, features):
            return super().forward(features)
        if self.stride != (1, 1) and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(features.float()).to(torch.get_autocast_dtype("cpu"))
        dilation = self.dilation[0]
        most = 2 * dilation > min(features.shape[2:])  # of the padded map would be padding
        if self.stride != (1, 1) or dilation == 1 or most:
            return super().forward(features)
        sides = [size // 2 for size in self.kernel_size]
        tiles, (rows, columns) = _tiles(features, dilation), features.shape[2:]
        convolved = functional.conv2d(tiles, self.weight, self.bias, padding=sides, groups=self.groups)
        whole = _whole(convolved, dilation)[..., :rows, :columns]
        return whole.contiguous(memory_format=torch.channels_last)


class ConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution, with a bias."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.bias is None or output_size is not None or not _slow(self, features):
            return super().forward(features, output_size)
        assert isinstance(self.padding, tuple)  # torch's annotation is of all convolutions
        made = functional.conv_transpose2d(
            features, self.weight, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
        return made + self.bias.to(made.dtype)[:, None, None]


def _slow(layer: nn.Module, features: Tensor) -> bool:
    return layer.training and features.device.type == "cpu" and torch.is_grad_enabled()


def _rows(features: Tensor) -> Tensor:
    """BCHW -> [B H, W C]."""
    return features.permute(0, 2, 3, 1).flatten(0, 1).flatten(1)


def _pixels(rows: Tensor, like: Tensor) -> Tensor:
    """[B H, W C] -> BCHW, channels last in memory."""
    batch, channels, height, width = like.shape
    return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _tiles(features: Tensor, step: int) -> Tensor:
    """BCHW -> [step step B, C, H / step, W / step]: each tile every `step`-th pixel, zeros where sizes don't divide."""
    padded = functional.pad(features, (0, -features.shape[3] % step, 0, -features.shape[2] % step))
    split = padded.permute(0, 2, 3, 1).unflatten(2, (-1, step)).unflatten(1, (-1, step))  # B h step w step C
    return split.permute(2, 4, 0, 1, 3, 5).flatten(0, 2).permute(0, 3, 1, 2)


def _whole(tiles: Tensor, step: int) -> Tensor:
    """What `_tiles` divided."""
    split = tiles.permute(0, 2, 3, 1).unflatten(0, (step, step, -1))  # step step B h w C
    return split.permute(2, 3, 0, 4, 1, 5).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

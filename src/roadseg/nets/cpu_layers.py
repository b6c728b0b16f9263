"""Layers whose gradients torch computes slowly on a CPU, channels last: in training they compute the same otherwise.

Each is torch's layer with torch's weights and names, and torch's own computation wherever it does not train, or not on
a CPU, or not channels last, so that what is exported, timed and deployed does not know of this file. `PReLU` and
`BatchNorm2d` are torch's also where `roadseg.kernels` cannot be compiled, or not for their type. An infinite feature
may become no number where torch leaves it infinite; training goes back from both.

Milliseconds, forwards and backwards, of a batch of 4 in bfloat16 on two threads of an AMD EPYC, family 26
(AVX512-BF16), torch 2.13.0:

| layer | why torch's is slow | CxHxW | torch's | here |
|---|---|---|---|---|
| `Dropout` | it draws serially, 32 bits a feature | 128x45x60 | 7.0 | 1.8 |
| `DepthwiseConv2d`, stride 2, on family 25 | the features' gradient has a reference loop alone | 384x45x60 | 28 | 1.3 |
| `DepthwiseConv2d`, dilation 4 | no fast gradient; space to batch, then undilated | 128x45x60 | 13 | 3.2 |
| `BiasedConvTranspose2d` | its bias is added and summed in short loops | from 16x180x240 to 11x360x480 | 19 | 8 |
"""

from types import NoneType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_weight

from roadseg import kernels


class PReLU(nn.PReLU):
    """x where it is positive, a slope times x elsewhere; BCHW. With one slope for all channels it is torch's always."""

    def forward(self, features: Tensor) -> Tensor:
        if not _trains_on_cpu(self, features):
            return super().forward(features)
        if torch.is_autocast_enabled("cpu") and features.dtype != torch.float64:  # as autocast does with torch's
            features = features.to(torch.get_autocast_dtype("cpu"))
        if not _has_kernel(self, features, self.weight):
            return super().forward(features)
        made: Tensor = kernels.PReLU.apply(features, self.weight)
        return made


JOINED: dict[type, str] = {NoneType: "none", nn.ReLU: "relu", PReLU: "prelu"}
"""What a norm's kernel calls the activation after it."""


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm, and what comes after it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)  # with what the kernel needs: weights, running statistics and a momentum

    def forward(
        self,
        input: Tensor,
        activation: nn.Module | None = None,
        *,
        shortcut: Tensor | None = None,
        dropout: nn.Dropout2d | None = None,
    ) -> Tensor:
        """activation(shortcut + dropout(norm)), without those that are not given. Of BCHW."""
        assert self.num_batches_tracked is not None and self.running_mean is not None and self.running_var is not None
        running = self.running_mean, self.running_var
        slopes = [activation.weight] if isinstance(activation, PReLU) else []
        several = input.numel() > self.num_features  # pixels: of one, torch raises that it has no variance
        name = JOINED.get(type(activation))
        has_kernel = several and name and _has_kernel(self, input, self.weight, self.bias, *running, *slopes)
        if not has_kernel or not (shortcut is None or _alike(shortcut, input)):
            return _followed(super().forward(input), activation, shortcut=shortcut, dropout=dropout)
        self.num_batches_tracked += 1
        kept = None if dropout is None else dropout(input.new_ones(*input.shape[:2], 1, 1, dtype=torch.float32))
        given = input, self.weight, self.bias, *running, self.momentum, self.eps, name
        after = slopes[0] if slopes else None, shortcut, None if kept is None else kept.flatten(1)
        normed: Tensor = kernels.Norm.apply(*given, *after)
        return normed


class Sequential(nn.Sequential):
    """torch's, but a `BatchNorm2d` is given the ReLU or PReLU after it; at the end, what a residual block adds.

    The norm's hooks are called with what comes of both. Where a kernel joins them, the activation's are not called, and
    a PReLU of float32 features stays float32 under autocast.
    """

    def forward(self, input: Tensor, **end: Any) -> Tensor:
        """Of BCHW. `end`: `BatchNorm2d`'s shortcut, dropout and activation, of what the last layer makes."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if not layers and isinstance(layer, (BatchNorm2d, Sequential)):
                return layer(input, **end)
            joined = isinstance(layer, BatchNorm2d) and type(layers[0]) in JOINED
            input = layer(input, layers.pop(0)) if joined else layer(input)
        return _followed(input, **end)


def _followed(
    made: Tensor,
    activation: nn.Module | None = None,
    *,
    shortcut: Tensor | None = None,
    dropout: nn.Dropout2d | None = None,
) -> Tensor:
    made = made if dropout is None else dropout(made)
    made = made if shortcut is None else shortcut + made
    return made if activation is None else activation(made)


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
            low = torch.get_autocast_dtype("cpu")
            if low == torch.bfloat16 and self.groups == self.out_channels:
                given = features.to(low), self.weight.to(low)
                made: Tensor = _Strided.apply(*given, self.stride, self.padding, self.dilation)
                return made
            with torch.autocast("cpu", enabled=False):
                return super().forward(features.float()).to(low)
        if stride > 1 or dilation == 1 or min(height, width) < 2 * dilation:  # maps of a pixel or two: mostly padding
            return super().forward(features)
        sides = [size // 2 for size in self.kernel_size]
        convolved = functional.conv2d(
            _space_to_batch(features, dilation), self.weight, padding=sides, groups=self.groups
        )
        whole = _batch_to_space(convolved, dilation)[..., :height, :width]
        return whole.contiguous(memory_format=torch.channels_last)  # a norm takes longer with a cropped map


class _Strided(torch.autograd.Function):
    """A strided depthwise convolution of as many outputs as inputs, "same" padding.

    Its gradient by the features, for which torch has a reference loop alone in bfloat16, is the convolution of what is
    given, zeros between its pixels, with the kernel turned round.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.given = stride, padding, dilation
        return functional.conv2d(features, weight, None, stride, padding, dilation, features.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (features, weight), (stride, padding, dilation) = ctx.saved_tensors, ctx.given
        [of_made], channels = gradients, features.shape[1]
        spread = torch.zeros_like(features)
        spread[..., :: stride[0], :: stride[1]] = of_made
        of_features = functional.conv2d(spread, weight.flip(2, 3), None, 1, padding, dilation, channels)
        of_weight = conv2d_weight(features, weight.shape, of_made, stride, padding, dilation, channels)
        return of_features, of_weight, None, None, None


class BiasedConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution that adds its bias afterwards."""

    def forward(self, features: Tensor, output_size: list[int] | None = None) -> Tensor:
        if self.bias is None or output_size is not None or not _trains_on_cpu(self, features):
            return super().forward(features, output_size)
        assert isinstance(self.padding, tuple)  # torch's annotation is of all convolutions
        made = functional.conv_transpose2d(
            features, self.weight, None, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )
        return _pixels(_rows(made) + self.bias.to(made.dtype).repeat(made.shape[3]), made)


class Dropout(nn.Dropout):
    """Dropout that draws 16 random bits for each feature, to which its probability is rounded."""

    def forward(self, input: Tensor) -> Tensor:
        """Of BCHW."""
        if not _trains_on_cpu(self, input):
            return super().forward(input)
        dropped = round(self.p * 2**16)
        if dropped in (0, 2**16):
            return super().forward(input)
        draws = torch.randint(-(2**63), 2**63 - 1, (-(-input.numel() // 4),))  # of int64's 64 bits, 16 a feature
        kept = draws.view(torch.int16)[: input.numel()] >= dropped - 2**15
        factor = kept.view(torch.uint8).to(input.dtype) / (1 - dropped / 2**16)  # of bools, to() is slow
        return input * _pixels(factor, input)


def _trains_on_cpu(layer: nn.Module, features: Tensor) -> bool:
    return layer.training and torch.is_grad_enabled() and _on_cpu_channels_last(features)


def _has_kernel(layer: nn.Module, features: Tensor, *parameters: Tensor) -> bool:
    """Whether a layer with these parameters of each channel trains here by a kernel of its own."""
    fit = _trains_on_cpu(layer, features) and kernels.maps.fit(features, *parameters)
    return fit and kernels.usable(features, *parameters)


def _alike(one: Tensor, features: Tensor) -> bool:
    """Whether a kernel that takes these features may read this beside them."""
    same = (one.dtype, one.shape) == (features.dtype, features.shape)
    return same and kernels.maps.fit(one) and kernels.usable(one)


def _on_cpu_channels_last(features: Tensor) -> bool:
    return features.device.type == "cpu" and features.stride(1) == 1


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

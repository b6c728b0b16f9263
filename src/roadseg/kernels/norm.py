"""Batch norm, what is added to it, and the activation after it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels import maps
from roadseg.kernels.library import run


class Norm(torch.autograd.Function):
    """Batch norm by the batch's own statistics, times `kept`, plus `shortcut`; what is then above 0 stays, the rest is
    multiplied by a slope.

    Of features, more than one pixel, and weight, bias, slope, running_mean and running_variance that `maps.fit`. The
    running statistics move by a share `momentum` towards the batch's, whose variance is unbiased there. slope: None is
    1. shortcut: None, or of the features' type and layout. kept: None, or float32 [B, C], contiguous, without gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        slope: Tensor | None,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        epsilon: float,
        shortcut: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        ctx.added, ctx.activated, ctx.epsilon = shortcut is not None, slope is not None, float(epsilon)
        slope = torch.ones_like(weight) if slope is None else slope
        kept = weight.new_ones(1, len(weight)) if kept is None else kept
        shortcut = features if shortcut is None else shortcut
        made, mean, variance = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
        given = features, shortcut, kept, weight, bias, slope, ctx.epsilon, float(momentum)
        running = running_mean, running_variance
        run(_name("norm", features), *_sizes(features, kept), int(ctx.added), *given, *running, made, mean, variance)
        read = shortcut if ctx.activated else features  # of a sum alone the gradient needs no terms
        ctx.save_for_backward(features, read, kept, weight, bias, slope, mean, variance)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, shortcut, kept, weight, bias, slope, mean, variance = ctx.saved_tensors
        of_made = gradients[0].contiguous(memory_format=torch.channels_last)
        gated = ctx.added and ctx.activated
        of_shortcut = torch.empty_like(features) if gated else of_made
        of_features, of_each = torch.empty_like(features), [torch.empty_like(weight) for _ in range(3)]
        given = features, shortcut, of_made, kept, weight, bias, slope, ctx.epsilon, mean, variance
        sizes = *_sizes(features, kept), int(gated)
        run(_name("norm_gradient", features), *sizes, *given, of_features, of_shortcut, *of_each)
        of_weight, of_bias, of_slope = of_each
        return (
            *(of_features, of_weight, of_bias, of_slope if ctx.activated else None, None, None, None, None),
            *(of_shortcut if ctx.added else None, None),
        )


def _name(kernel: str, features: Tensor) -> str:
    return f"{kernel}_{maps.NAMES[features.dtype]}"


def _sizes(features: Tensor, kept: Tensor) -> tuple[int, int, int, int]:
    """Parts that are kept alike, their pixels, channels, and threads to take."""
    pixels, channels, threads = maps.sizes(features)
    return len(kept), pixels // len(kept), channels, threads

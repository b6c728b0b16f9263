"""Batch norm, what is added to it, and the activation after it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels import maps
from roadseg.kernels.library import run


class Norm(torch.autograd.Function):
    """Batch norm by the batch's own statistics, times `kept`, plus `shortcut`, and an activation after them.

    Of features, more than one pixel, and weight, bias, slope, running_mean and running_variance that `maps.fit`. The
    running statistics move by a share `momentum` towards the batch's, whose variance is unbiased there.

    activation: "none", "relu", or "prelu", which alone has a slope. shortcut: of the features' shape, type and layout.
    kept: float32 [B, C], contiguous, without gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        epsilon: float,
        activation: str = "none",
        slope: Tensor | None = None,
        shortcut: Tensor | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        ctx.activation, ctx.epsilon = activation, float(epsilon)
        ctx.sloped, ctx.added = slope is not None, shortcut is not None
        slope = weight if slope is None else slope  # what is not given is not read
        shortcut = features if shortcut is None else shortcut
        kept = weight.new_ones(1, len(weight)) if kept is None else kept
        made, mean, variance = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
        given = features, shortcut, kept, weight, bias, slope, ctx.epsilon, float(momentum)
        found = running_mean, running_variance, made, mean, variance
        name = f"norm_{activation}_{maps.NAMES[features.dtype]}"
        run(name, *_sizes(features, kept), int(ctx.added), *given, *found)
        read = features if activation == "none" else shortcut  # a sum's gradient needs no terms
        ctx.save_for_backward(features, read, kept, weight, bias, slope, mean, variance)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, shortcut, kept, weight, bias, slope, mean, variance = ctx.saved_tensors
        of_made = gradients[0].contiguous(memory_format=torch.channels_last)
        gated = ctx.added and ctx.activation != "none"
        # Not empty: on an EPYC, in a third of the processes, stores to what no cache has took five times as long here.
        of_shortcut = torch.zeros_like(features) if gated else of_made
        of_features, of_each = torch.empty_like(features), [torch.empty_like(weight) for _ in range(3)]
        given = features, shortcut, of_made, kept, weight, bias, slope, ctx.epsilon, mean, variance
        name = f"norm_{ctx.activation}_gradient_{maps.NAMES[features.dtype]}"
        run(name, *_sizes(features, kept), int(gated), *given, of_features, of_shortcut, *of_each)
        of_weight, of_bias, of_slope = of_each
        return (
            *(of_features, of_weight, of_bias, None, None, None, None, None),
            *(of_slope if ctx.sloped else None, of_shortcut if ctx.added else None, None),
        )


def _sizes(features: Tensor, kept: Tensor) -> tuple[int, int, int, int]:
    """Parts that are kept alike, their pixels, channels, and threads to take."""
    pixels, channels, threads = maps.sizes(features)
    return len(kept), pixels // len(kept), channels, threads

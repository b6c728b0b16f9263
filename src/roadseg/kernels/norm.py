"""Batch norm and the activation after it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels import maps
from roadseg.kernels.library import run


class Norm(torch.autograd.Function):
    """Batch norm by the batch's own statistics; what is then above 0 stays, the rest is multiplied by a slope.

    Of features, more than one pixel, and weight, bias, slope, running_mean and running_variance that `maps.fit`. The
    running statistics move by a share `momentum` towards the batch's, whose variance is unbiased there.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        slope: Tensor,
        running_mean: Tensor,
        running_variance: Tensor,
        momentum: float,
        epsilon: float,
    ) -> Tensor:
        made, mean, variance = torch.empty_like(features), torch.empty_like(weight), torch.empty_like(weight)
        given = features, weight, bias, slope, float(epsilon), float(momentum), running_mean, running_variance
        run(f"norm_{maps.NAMES[features.dtype]}", *maps.sizes(features), *given, made, mean, variance)
        ctx.save_for_backward(features, weight, bias, slope, mean, variance)
        ctx.epsilon = epsilon
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, bias, slope, mean, variance = ctx.saved_tensors
        of_made = gradients[0].contiguous(memory_format=torch.channels_last)
        found = torch.empty_like(features), *(torch.empty_like(weight) for _ in range(3))
        given = features, of_made, weight, bias, slope, float(ctx.epsilon), mean, variance
        run(f"norm_gradient_{maps.NAMES[features.dtype]}", *maps.sizes(features), *given, *found)
        return *found, None, None, None, None

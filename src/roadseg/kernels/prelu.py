"""PReLU with a slope for each channel."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels import maps
from roadseg.kernels.library import run


class PReLU(torch.autograd.Function):
    """What is above 0 stays, the rest is multiplied by a slope. Of features and slope that `maps.fit`."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, slope: Tensor) -> Tensor:
        made = torch.empty_like(features)
        run(f"prelu_{maps.NAMES[features.dtype]}", *maps.sizes(features), features, slope, made)
        ctx.save_for_backward(features, slope)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        features, slope = ctx.saved_tensors
        of_made = gradients[0].contiguous(memory_format=torch.channels_last)
        found = torch.empty_like(features), torch.empty_like(slope)
        run(f"prelu_gradient_{maps.NAMES[features.dtype]}", *maps.sizes(features), features, of_made, slope, *found)
        return found

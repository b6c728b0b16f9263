"""Bilinear interpolation."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels.library import run


class Bilinear(torch.autograd.Function):
    """`maps`, float32 BCHW of a pixel at least and contiguous, at `size` = (height, width), `align_corners=False`."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, size: tuple[int, int]) -> Tensor:
        made = maps.new_empty(*maps.shape[:2], *size)
        ctx.sizes = maps.shape, (maps.shape[0] * maps.shape[1], *maps.shape[2:], *size)
        run("bilinear", *ctx.sizes[1], torch.get_num_threads(), maps, made)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        shape, sizes = ctx.sizes
        given, found = gradients[0].contiguous(), gradients[0].new_empty(shape)
        run("bilinear_gradient", *sizes, torch.get_num_threads(), given, found)
        return found, None

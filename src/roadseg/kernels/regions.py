"""Sums over each class's region."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels.library import run
from roadseg.kernels.logits import run_over, sizes


class Regions(torch.autograd.Function):
    """Of each class sum(p y), sum(p) and sum(y) over the pixels whose target is not `ignore`. float32 [3, C].

    p is the softmax of logits, float32 BCHW; y is 1 where target, int64 BHW, is the class, else 0. Both must be
    contiguous. Raises what `logits.run_over` does.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore: int) -> Tensor:
        made = logits.new_zeros(3, logits.shape[1], dtype=torch.float64)
        run_over("region_sums", logits, target, ignore, made)
        ctx.save_for_backward(logits, target)
        ctx.ignore = ignore
        return made.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, target = ctx.saved_tensors
        of_overlap, of_said, _ = gradients[0].contiguous()
        found = torch.empty_like(logits)
        run("region_sums_gradient", *sizes(logits, target), ctx.ignore, logits, target, of_overlap, of_said, found)
        return found, None, None

"""Cross-entropy of each pixel."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels.library import run
from roadseg.kernels.logits import run_over, sizes


class CrossEntropy(torch.autograd.Function):
    """-log p(true class), 0 where the target is `ignore`. float32 BHW.

    logits: float32 BCHW, contiguous; target: int64 BHW, contiguous. Raises what `logits.run_over` does.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore: int) -> Tensor:
        largest, total, of_true = (logits.new_empty(target.shape) for _ in range(3))
        run_over("cross_entropy_sums", logits, target, ignore, largest, total, of_true)
        log_sum = total.log_()
        ctx.save_for_backward(logits, target, largest, log_sum)
        ctx.ignore = ignore
        return log_sum - of_true

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, target, largest, log_sum = ctx.saved_tensors
        found = torch.empty_like(logits)
        given = *sizes(logits, target), ctx.ignore, logits, target, largest, log_sum, gradients[0].contiguous()
        run("cross_entropy_gradient", *given, found)
        return found, None, None

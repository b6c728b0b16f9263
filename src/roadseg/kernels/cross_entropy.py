"""Cross-entropy of each pixel."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels.library import run


class CrossEntropy(torch.autograd.Function):
    """-log p(true class), 0 where the target is `ignore`. float32 BHW.

    logits: float32 BCHW, contiguous; target: int64 BHW, contiguous. Raises IndexError where a target is neither a class
    nor `ignore`.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore: int) -> Tensor:
        if target.dtype != torch.int64 or target.shape != (len(logits), *logits.shape[2:]):
            raise ValueError(f"`target` must be int64 BHW of the logits: {target.dtype}, {tuple(target.shape)}")
        largest, total, of_true = (torch.empty(target.shape) for _ in range(3))
        wrong = torch.zeros((), dtype=torch.int64)
        run("cross_entropy_sums", *_sizes(logits), ignore, logits, target, largest, total, of_true, wrong)
        if wrong:
            raise IndexError(f"a target is neither one of {logits.shape[1]} classes nor {ignore}")
        log_sum = total.log_()
        ctx.save_for_backward(logits, target, largest, log_sum)
        ctx.ignore = ignore
        return (log_sum - of_true).masked_fill_(target == ignore, 0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        logits, target, largest, log_sum = ctx.saved_tensors
        of_made, found = gradients[0].contiguous(), torch.empty_like(logits)
        run("cross_entropy_gradient", *_sizes(logits), ctx.ignore, logits, target, largest, log_sum, of_made, found)
        return found, None, None


def _sizes(logits: Tensor) -> tuple[int, int, int, int]:
    """Images, classes, pixels of an image, and threads to take."""
    images, classes, height, width = logits.shape
    return images, classes, height * width, torch.get_num_threads()

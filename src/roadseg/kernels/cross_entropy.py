"""Cross-entropy of each pixel."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from roadseg.kernels.library import run


class CrossEntropy(torch.autograd.Function):
    """-log p(true class), 0 where the target is `ignore`. float32 BHW.

    logits: float32 BCHW, contiguous; target: int64 BHW, contiguous. Raises IndexError where a target is neither a class
    nor `ignore`, ValueError for tensors that are not these.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore: int) -> Tensor:
        if logits.dtype != torch.float32 or target.dtype != torch.int64 or target.shape != logits[:, 0].shape:
            given = logits.dtype, tuple(logits.shape), target.dtype, tuple(target.shape)
            raise ValueError("logits must be float32 BCHW, the target int64 BHW: {} {}, {} {}".format(*given))
        if not (logits.is_contiguous() and target.is_contiguous()):
            raise ValueError("`logits` and `target` must be contiguous")
        largest, total, of_true = (logits.new_empty(target.shape) for _ in range(3))
        wrong = target.new_zeros(())
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

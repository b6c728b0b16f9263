"""What kernels that go over logits take of them, and of their target."""

import torch
from torch import Tensor

from roadseg.kernels.library import run


def run_over(name: str, logits: Tensor, target: Tensor, ignore: int, *made: Tensor) -> None:
    """Calls a kernel that reads logits, float32 BCHW of a pixel at least, and target, int64 BHW of any height and
    width, both contiguous, and writes into `made`, of which it knows type and size.

    Raises IndexError where a target is neither a class nor `ignore`, ValueError for other logits or targets.
    """
    fits = logits.dim() == 4 and target.dim() == 3 and len(target) == len(logits) and logits.numel()
    if logits.dtype != torch.float32 or target.dtype != torch.int64 or not fits:
        given = logits.dtype, tuple(logits.shape), target.dtype, tuple(target.shape)
        raise ValueError("logits must be float32 BCHW, the target int64 BHW: {} {}, {} {}".format(*given))
    if not (logits.is_contiguous() and target.is_contiguous()):
        raise ValueError("`logits` and `target` must be contiguous")
    wrong = target.new_zeros(())
    run(name, *sizes(logits, target), ignore, logits, target, *made, wrong)
    if wrong:
        raise IndexError(f"a target is neither one of {logits.shape[1]} classes nor {ignore}")


def sizes(logits: Tensor, target: Tensor) -> tuple[int, ...]:
    """Images, classes, height and width of the logits, height and width of the target, and threads to take."""
    return *logits.shape, *target.shape[1:], torch.get_num_threads()

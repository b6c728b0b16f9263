"""Several processes that train as one, started by torchrun; of a process alone everything here does nothing.

Each process sees an equal part of every batch. Their gradients are averaged (torch's DistributedDataParallel), sums
over the batch go over all of them, and so every process holds the same network, takes the same decisions, and ends
where one process with the whole batch would have ended, but for dropout, mixup (which pairs the crops of one process),
OHEM's least share and Lovász's order (of one process's pixels), and rounding, whose last digits the training of a deep
network from random weights magnifies in float32.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import distributed as dist


def launched() -> bool:
    """Whether torchrun started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[None]:
    """Among the processes that torchrun started, waiting for the others: nccl where there are GPUs, a process each,
    else gloo on the CPU."""
    if not launched():
        yield
        return
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # the first may wait long for its turn on a GPU; one that dies is torchrun's to notice
    dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(days=7))
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def total(value: Tensor) -> Tensor:
    """The sum over all processes, with its gradient."""
    return _Total.apply(value) if size() > 1 else value


def averaged(value: Tensor) -> Tensor:
    """The mean over all processes, with its gradient. A loss that divides by it, where it is a count, divides by the
    whole batch's: DistributedDataParallel averages over the processes once more."""
    return total(value) / size() if size() > 1 else value


def added(matrices: np.ndarray) -> np.ndarray:
    """The sum over all processes of a NumPy array of numbers."""
    if size() == 1:
        return matrices
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    return total(torch.from_numpy(matrices).to(device)).cpu().numpy()


def agreed(value: bool) -> bool:
    """What the first process says."""
    return bool(added(np.array([value and rank() == 0], dtype=np.int64))[0]) if size() > 1 else value


class _Total(torch.autograd.Function):
    """All-reduce, forwards and backwards: what each process's part of the sum did to every process's loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


class SyncBatchNorm(torch.nn.BatchNorm2d):
    """Batch norm over the whole batch of all processes (torch's own SyncBatchNorm refuses to run on a CPU)."""

    def forward(self, input: Tensor) -> Tensor:
        """Of BCHW, any float type."""
        if not self.training or size() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        count = total(x.new_tensor([x.numel() / x.shape[1]]))
        mean_C = total(x.sum(dim=(0, 2, 3))) / count
        centred = x - mean_C[:, None, None]
        var_C = total(centred.square().sum(dim=(0, 2, 3))) / count
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None and self.momentum is not None
            with torch.no_grad():
                self.num_batches_tracked += 1
                self.running_mean.lerp_(mean_C, self.momentum)
                self.running_var.lerp_(var_C * count / (count - 1), self.momentum)
        scaled = centred * (var_C + self.eps).rsqrt()[:, None, None]
        if self.affine:
            scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(input.dtype)


def synchronise(net: torch.nn.Module) -> torch.nn.Module:
    """`net`, its batch norms seeing all processes' crops. Its state dict stays the same."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.__class__ = SyncBatchNorm
    return net

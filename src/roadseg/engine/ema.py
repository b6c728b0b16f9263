"""Exponential moving average of a network's weights (Polyak and Juditsky 1992): what is judged and deployed."""

import copy

import torch
from torch import nn


class EMA:
    """`average.net` follows `net`: a copy in eval mode, without gradients.

    Parameters: average += (1 - d) (net - average), with d = min(decay, (1 + step) / (10 + step)), so that the first
    steps, far from any good weights, are soon forgotten (TensorFlow's `ExponentialMovingAverage`, `num_updates`).
    Buffers (BatchNorm's running statistics) are averages already, and are copied. Decay 0 copies everything.
    """

    def __init__(self, net: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"`decay` (={decay}) must be in [0, 1)")
        self.decay = decay
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self._parameters: list[torch.Tensor] = list(self.net.parameters())
        self._buffers = list(self.net.buffers())

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        """Take in the weights that optimiser step number `step` (from 0) left in `net`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._parameters, [*net.parameters()], 1 - decay)
        for mine, its in zip(self._buffers, net.buffers(), strict=True):
            mine.copy_(its)

    @torch.no_grad()
    def restore_buffers(self, net: nn.Module) -> None:
        """Give `net` those of the last step again, after one that was broken off."""
        for mine, its in zip(self._buffers, net.buffers(), strict=True):
            its.copy_(mine)

"""All that changes while a network trains, and what changes it: made by `start`, moved by roadseg.engine.fit."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from roadseg import distributed
from roadseg.engine import optimizers
from roadseg.engine.ema import EMA
from roadseg.engine.precision import check_compiled, resolve
from roadseg.schedules import Schedule

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits BCHW of any float type, target int64 BHW with 255 = ignore) -> scalar. See roadseg.losses."""


@dataclass(frozen=True)
class Teacher:
    """A trained network that training imitates."""

    net: nn.Module
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(student's logits, teacher's logits, target) -> scalar; see roadseg.distillation."""
    weight: float
    """Of that loss, beside the labels' own."""


@dataclass
class Training:
    """All that changes while a network trains, and what changes it. Made by `start`."""

    net: nn.Module
    forward: Callable[[Tensor], Any]
    """`net` as a step calls it: compiled, or averaging its gradients over several processes."""
    ema: EMA
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    loss: LossFunction
    schedule: Schedule
    learning_rate: float
    aux_weight: float
    teacher: Teacher | None
    dtype: torch.dtype
    """Autocast's; float32 means none."""
    device: torch.device
    channels_last: bool
    total_steps: int
    seed: int
    mixup: float
    """Of the Beta distribution that the share of the other image is drawn from; 0 mixes nothing."""
    clip: float | None
    """Largest norm of the gradient; None does not clip."""
    parts: int
    """In how many parts a batch goes through, one after another."""
    setbacks: int = 0
    """How often training went back."""
    step: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0

    def autocast(self) -> torch.autocast:
        """The context in which networks compute."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def state(self) -> dict[str, Any]:
        """All that a resume needs: a live view for `roadseg.checkpoint.save`, not a copy."""
        return {
            "net": self.net.state_dict(),
            "ema": self.ema.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "total_steps": self.total_steps,
            "seed": self.seed,
            "seconds": self.seconds,
            "setbacks": self.setbacks,
            "parts": self.parts,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state()`. Raises ValueError where it is of a run with another length or seed."""
        for name in ("total_steps", "seed"):
            if state[name] != getattr(self, name):
                mine = getattr(self, name)
                raise ValueError(f"the checkpoint's `{name}` (={state[name]}) is not this run's (={mine})")
        self.net.load_state_dict(state["net"])
        self.ema.net.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # torch would train on in the state's tensors
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds, self.setbacks = state["step"], state["seconds"], state["setbacks"]
        self.parts = max(self.parts, state["parts"])  # what did not fit once will not fit again


def start(
    net: nn.Module,
    *,
    loss: LossFunction,
    learning_rate: float,
    weight_decay: float,
    schedule: Schedule,
    ema: float,
    optimizer: str = "adamw",
    encoder: Sequence[nn.Parameter] = (),
    encoder_rate: float = 1.0,
    mixup: float = 0.0,
    clip: float | None = None,
    parts: int = 1,
    compiled: bool = False,
    precision: str,
    channels_last: bool,
    device: torch.device | str,
    total_steps: int,
    aux_weight: float = 0.0,
    teacher: Teacher | None = None,
    seed: int,
) -> Training:
    """A fresh run of `total_steps` steps on `net`, which is moved to `device`.

    learning_rate: the schedule's peak. optimizer, weight_decay, encoder, encoder_rate: see roadseg.engine.optimizers.
    ema: decay of the weights' average. mixup: alpha of Zhang et al. 2018, whose images and losses are mixed by a share
    drawn from Beta(alpha, alpha). clip: largest norm of a step's gradient. parts: divides each batch, so that less of
    it is in memory at once. compiled: whether torch.compile translates the network first. precision: a name of
    roadseg.engine.precision. aux_weight: of the loss of each auxiliary head (all that a training forward returns after
    its first output). teacher: imitated by the main output, and moved to `device` too.

    Within `roadseg.distributed.joined` the processes' networks train as one. Raises UserError for a wrong optimizer,
    and where torch.compile cannot be trusted (see roadseg.engine.precision).
    """
    device = torch.device(device)
    dtype = resolve(precision, device)
    net = net.to(device)
    if teacher:
        teacher.net.to(device).eval().requires_grad_(False)
    for one in (net, teacher.net) if teacher else (net,):
        if channels_last:
            one.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    forward: Callable[[Tensor], Any] = net
    if distributed.size() > 1:
        # its own copying of buffers is not needed: SyncBatchNorm gives every process the same
        forward = DistributedDataParallel(distributed.synchronise(net), forward_sync_buffers=False)
    if compiled:
        check_compiled(dtype, device)
        forward = torch.compile(forward)
    return Training(
        net=net,
        forward=forward,
        ema=EMA(net, ema),
        optimizer=optimizers.build(
            optimizer, net, weight_decay=weight_decay, encoder=encoder, encoder_rate=encoder_rate
        ),
        scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
        loss=loss,
        schedule=schedule,
        learning_rate=learning_rate,
        aux_weight=aux_weight,
        teacher=teacher,
        dtype=dtype,
        device=device,
        channels_last=channels_last,
        total_steps=total_steps,
        seed=seed,
        mixup=mixup,
        clip=clip,
        parts=parts,
    )

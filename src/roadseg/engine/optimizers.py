"""The optimizers, by name: torch's own, with the parameters in groups.

Weight decay acts on weights of two and more dimensions, so not on biases and norms, nor on Swin's table of biases by
relative position, as its authors train it. An encoder may learn more slowly
than the rest: each group's `share` says by how much of the learning rate.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from roadseg import named
from roadseg.named import in_range

Groups = list[dict[str, Any]]

MOST = 0.9999
"""Of a momentum: at 1 nothing that a step adds would ever fade."""


def adamw(beta1: float = 0.9, beta2: float = 0.999) -> Callable[[Groups], Optimizer]:
    """Decoupled weight decay: Loshchilov and Hutter 2019."""
    return lambda groups: torch.optim.AdamW(groups, betas=(beta1, beta2), fused=True)


def adam(beta1: float = 0.9, beta2: float = 0.999) -> Callable[[Groups], Optimizer]:
    """Kingma and Ba 2015; weight decay is added to the gradient, as in their day."""
    return lambda groups: torch.optim.Adam(groups, betas=(beta1, beta2), fused=True)


def sgd(momentum: float = 0.9, nesterov: float = 0) -> Callable[[Groups], Optimizer]:
    """With momentum, as most segmentation papers train; Nesterov's where `nesterov` is not 0."""
    in_range(momentum=(momentum, 0, MOST))

    def make(groups: Groups) -> Optimizer:
        made = torch.optim.SGD(groups, momentum=momentum, nesterov=bool(nesterov), fused=True)
        # torch would take memory as it finds it for the first momentum, and leave that unwritten where a gradient
        # scaler leaves out the first step; from 0 the first step is the same
        for weight in (weight for group in made.param_groups for weight in group["params"]):
            made.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        return made

    return make


def rmsprop(alpha: float = 0.99, momentum: float = 0.9) -> Callable[[Groups], Optimizer]:
    """Tieleman and Hinton 2012 with momentum."""
    in_range(alpha=(alpha, 0, MOST), momentum=(momentum, 0, MOST))
    return lambda groups: torch.optim.RMSprop(groups, alpha=alpha, momentum=momentum)


OPTIMIZERS: dict[str, Callable[..., Callable[[Groups], Optimizer]]] = {
    "adamw": adamw,
    "adam": adam,
    "sgd": sgd,
    "rmsprop": rmsprop,
}


def build(
    text: str, net: nn.Module, *, weight_decay: float, encoder: Iterable[nn.Parameter] = (), encoder_rate: float = 1.0
) -> Optimizer:
    """The optimizer that `text` names, such as adamw or sgd(momentum=0.95), over the net's parameters.

    `encoder`: those that learn at `encoder_rate` of the learning rate. That is set before each step: see `share` of the
    groups. Raises UserError where there is no such optimizer or setting.
    """
    make = named.made("optimizer", text, OPTIMIZERS)
    slow = {id(parameter) for parameter in encoder} if encoder_rate != 1 else set()
    groups: dict[tuple[bool, bool], Groups] = {}
    for name, parameter in net.named_parameters():
        decays = parameter.ndim >= 2 and "bias" not in name.rpartition(".")[2]
        groups.setdefault((id(parameter) in slow, decays), []).append(parameter)  # type: ignore[arg-type]
    listed = [
        {"params": members, "weight_decay": weight_decay * decays, "share": encoder_rate if slowly else 1.0}
        for (slowly, decays), members in sorted(groups.items(), reverse=True)
    ]
    return named.called("optimizer", text, make, {"groups": listed})  # torch checks the ranges

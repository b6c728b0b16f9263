"""The networks, by name. Each takes the number of classes and starts from random weights.

Input: float32 B3HW, RGB, normalised; any height and width from 32 up (each file says what its strides like best).
Output: float logits BCHW at exactly the input's height and width. In training mode a list of such logits: the main one
first, then those of the training heads, if the network has any, whose losses count `AUX_WEIGHT` each. The latter are
at 1/8 of the input, rounded up: bringing them to full size made a training step of Fast-SCNN up to 60 % longer on a
CPU.
"""

from collections.abc import Callable
from functools import partial

from torch import nn

from roadseg.errors import UserError
from roadseg.nets.ddrnet import DDRNet23Slim
from roadseg.nets.enet import ENet
from roadseg.nets.fastscnn import FastSCNN

NETS: dict[str, Callable[[int], nn.Module]] = {
    "enet": ENet,
    "fastscnn": FastSCNN,
    "ddrnet23slim": DDRNet23Slim,
}

AUX_WEIGHT = 0.4
"""Weight of a training head's loss beside the main one's 1: Fast-SCNN, section 4.1; DDRNet, section IV-C."""


def module_of(name: str) -> str:
    """The module that a network is written in."""
    build = NETS[name]
    return (build.func if isinstance(build, partial) else build).__module__


def build(name: str, classes: int) -> nn.Module:
    """A freshly initialised network, in training mode, from torch's global random state. Raises UserError on an unknown
    `name`."""
    if name not in NETS:
        raise UserError(f"there is no network {name!r}: choose one of {', '.join(NETS)}")
    return NETS[name](classes)

"""How large a network is and how much it computes, as papers count: without training heads, batch norms not folded."""

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from roadseg import nets


def parameters(net: nn.Module) -> int:
    """Trainable numbers of what is deployed: all but those of `net.heads`, which only training has."""
    heads = {id(parameter) for parameter in getattr(net, "heads", nn.Module()).parameters()}
    return sum(parameter.numel() for parameter in net.parameters() if id(parameter) not in heads)


def multiply_adds(net: nn.Module, height: int, width: int) -> int:
    """Multiply-adds of one image in eval mode, by torch's own counter, which counts two operations for each.

    It counts convolutions and matrix products; norms, activations, pooling and resizing are left out, as in the tables
    of PaddleSeg and of the networks' own repositories. Their "FLOPs" are multiply-adds too. Counted is what a second
    image adds: products of weights alone, which an engine computes once, are left out. On a copy on torch's meta
    device: shapes alone, no time.
    """
    shapes = copy.deepcopy(net).to("meta").eval()

    def operations(batch: int) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            shapes(torch.empty(batch, 3, height, width, device="meta"))
        return int(counter.get_total_flops())

    return (operations(2) - operations(1)) // 2


def of(name: str, classes: int, height: int, width: int) -> tuple[int, int]:
    """Parameters and multiply-adds of a registered network."""
    with torch.device("meta"):
        net = nets.build(name, classes)
    return parameters(net), multiply_adds(net, height, width)

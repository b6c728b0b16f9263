"""What a network is made of: the sizes of its stages and the numbers that its layers give, to hold against a paper."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def sizes(net: nn.Module, names: Iterable[str], height: int, width: int) -> dict[str, tuple[int, ...]]:
    """(channels, height, width) that the submodules of these names give for one image; `net` goes to "meta" as well."""
    seen = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = tuple(output.shape[1:])

        return hook

    for name in names:
        net.get_submodule(name).register_forward_hook(note(name))
    net.eval().to("meta")(torch.empty(1, 3, height, width, device="meta"))
    return seen


def elements(net: nn.Module, kinds: type | tuple[type, ...], height: int, width: int) -> int:
    """How many numbers all modules of these kinds give for one image; `net` goes to "meta" as well."""
    seen: list[int] = []
    for module in net.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.numel()))
    net.eval().to("meta")(torch.empty(1, 3, height, width, device="meta"))
    return sum(seen)

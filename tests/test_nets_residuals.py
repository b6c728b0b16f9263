"""Residual blocks, written out: activation(shortcut + dropout(branch)); trained on a CPU their end is one kernel."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets import bisenetv2, ddrnet, enet, fastscnn, regseg
from tests.compiler import needs_compiler


def maps(*shape: int) -> Tensor:
    return torch.randn(2, *shape).to(memory_format=torch.channels_last)


def end(block: Any, shortcut: Tensor, branch: Tensor) -> Tensor:
    """Of the block's own layers."""
    made = shortcut + getattr(block, "dropout", nn.Identity())(branch)
    ended: Tensor = getattr(block, "activation", nn.Identity())(made)
    return ended


def enet_down(block: Any, features: Tensor) -> Tensor:
    pooled = functional.max_pool2d(features, 2)
    return end(block, torch.cat([pooled, pooled.new_zeros(2, 48, 4, 6)], dim=1), block.branch(features))


def enet_up(block: Any, features: Tensor, maxima: Tensor) -> Tensor:
    unpooled = functional.interpolate(block.main(features), scale_factor=2.0) * maxima
    return end(block, unpooled, block.branch(features))


def regseg_strided(block: Any, features: Tensor) -> Tensor:
    return end(block, block.shortcut(functional.avg_pool2d(features, 2)), block.branch(features))


def by_shortcut(block: Any, features: Tensor) -> Tensor:
    return end(block, block.shortcut(features), block.branch(features))


def by_input(block: Any, features: Tensor) -> Tensor:
    return end(block, features, block.branch(features))


def fusion(block: Any, shallow: Tensor, deep: Tensor) -> Tensor:
    large = functional.interpolate(deep, scale_factor=2.0, mode="bilinear")
    return end(block, block.shallow(shallow), block.deep(large))


PLAIN = (maps(16, 8, 12),)
BLOCKS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "enet": (lambda: enet.Bottleneck(16, 0.5), by_input, PLAIN),
    "enet down": (lambda: enet.Down(16, 64, 0.5), enet_down, PLAIN),
    "enet up": (lambda: enet.Up(16, 16, 0.5), enet_up, (*PLAIN, maps(16, 16, 24))),
    "ddrnet": (lambda: ddrnet.Residual(16, 16), by_input, PLAIN),
    "ddrnet, wide": (lambda: ddrnet.Residual(16, 16, 2, wide=True), by_shortcut, PLAIN),
    "regseg": (lambda: regseg.DBlock(16, 16, (1, 1)), by_input, PLAIN),
    "regseg, strided": (lambda: regseg.DBlock(16, 32, (1, 1), 2), regseg_strided, PLAIN),
    "bisenetv2": (lambda: bisenetv2.GatherExpansion(16, 16), by_input, PLAIN),
    "bisenetv2, strided": (lambda: bisenetv2.GatherExpansion(16, 32, 2), by_shortcut, PLAIN),
    "fastscnn": (lambda: fastscnn.Bottleneck(16, 16, 1), by_input, PLAIN),
    "fastscnn, fusion": (lambda: fastscnn.Fusion(16, 16, 32), fusion, (*PLAIN, maps(16, 4, 6))),
}


@pytest.fixture(params=BLOCKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Callable[..., Tensor], tuple[Tensor, ...]]:
    """A block, the same written out, and what both are given."""
    torch.manual_seed(0)
    make, written_out, given = BLOCKS[request.param]
    block = make()
    for layer in block.modules():
        if isinstance(layer, nn.BatchNorm2d):  # a residual's last may start at 0
            nn.init.uniform_(layer.weight, 0.5, 1.5), nn.init.uniform_(layer.bias)
    return block, written_out, given


@pytest.mark.parametrize("training", [True, False])
def test_a_block_adds_its_branch_to_its_shortcut(case: tuple[Any, ...], training: bool) -> None:
    block, written_out, given = case
    block.train(training)
    torch.manual_seed(1)
    made = block(*given)
    made = made[0] if isinstance(made, tuple) else made  # ENet's Down also gives where its maxima are
    torch.manual_seed(1)
    torch.testing.assert_close(made, written_out(block, *given), rtol=1e-4, atol=1e-5)


@needs_compiler
def test_its_end_is_one_kernel_also_below_float32(case: tuple[Any, ...]) -> None:
    block, _, given = case
    with torch.autocast("cpu", torch.bfloat16):
        made = block(*(one.bfloat16() for one in given))
    made = made[0] if isinstance(made, tuple) else made
    assert made.dtype == torch.bfloat16
    assert type(made.grad_fn).__name__ == "NormBackward"

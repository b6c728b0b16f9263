"""Layers that compute otherwise while they train: torch's own are the reference, in values and in every gradient."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from roadseg.nets.gradients import ConvTranspose2d, DepthwiseConv2d, PReLU

LAYERS = {
    "prelu": (nn.PReLU, PReLU, (6,), {}),
    "stride": (nn.Conv2d, DepthwiseConv2d, (6, 6, 3, 2, 1), {"groups": 6, "bias": False}),
    "dilation 2": (nn.Conv2d, DepthwiseConv2d, (6, 6, 3, 1, 2, 2), {"groups": 6}),
    "dilation 4, two outputs a channel": (nn.Conv2d, DepthwiseConv2d, (6, 12, 3, 1, 4, 4), {"groups": 6}),
    "dilation 7, larger than half the map": (nn.Conv2d, DepthwiseConv2d, (6, 6, 3, 1, 7, 7), {"groups": 6}),
    "5 by 5, dilation 3": (nn.Conv2d, DepthwiseConv2d, (6, 6, 5, 1, 6, 3), {"groups": 6}),
    "transposed": (nn.ConvTranspose2d, ConvTranspose2d, (6, 11, 3, 2, 1, 1), {}),
}


@pytest.fixture(params=LAYERS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    theirs, ours, given, named = LAYERS[request.param]
    torch.manual_seed(0)
    reference, layer = theirs(*given, **named), ours(*given, **named)
    if isinstance(reference, nn.PReLU):
        nn.init.uniform_(reference.weight, -0.5, 1.5)  # a slope of its own for each channel, below 0 and above 1 too
    layer.load_state_dict(reference.state_dict())
    return reference, layer


def gradients(layer: nn.Module, features: Tensor) -> list[Tensor]:
    """The output, the features' gradient and each parameter's."""
    features = features.clone().requires_grad_()
    layer.zero_grad()
    made = layer(features)
    made.backward(torch.linspace(-1, 1, made.numel(), dtype=torch.float64).reshape(made.shape).to(made.dtype))
    return [made.detach(), features.grad, *(one.grad for one in layer.parameters())]


@pytest.mark.parametrize("size", [(12, 16), (11, 13)])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_values_and_gradients_are_torchs(
    pair: tuple[nn.Module, nn.Module], size: tuple[int, int], order: torch.memory_format
) -> None:
    reference, layer = (one.double() for one in pair)
    features = torch.randn(2, 6, *size, dtype=torch.float64).to(memory_format=order)
    features[0, 0, 0, :3] = 0  # where a PReLU's gradient is the slope
    wanted, found = gradients(reference, features), gradients(layer, features)
    for one, other in zip(wanted, found, strict=True):
        # a PReLU adds up its slopes' gradients in float32
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


def test_under_bfloat16_too(pair: tuple[nn.Module, nn.Module]) -> None:
    reference, layer = pair
    features = torch.randn(2, 6, 11, 13).to(torch.bfloat16).to(memory_format=torch.channels_last)
    wanted = gradients(reference, features.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, features)
    assert found[0].dtype == torch.bfloat16
    for one, other in zip(wanted, found, strict=True):
        worst = (other.float() - one).abs().max()
        assert worst <= 0.02 * one.abs().max()  # bfloat16 has 8 bits


class Called(TorchDispatchMode):
    """Which operations were run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_does_not_train_is_torchs_own_computation(pair: tuple[nn.Module, nn.Module]) -> None:
    features, names = torch.randn(1, 6, 12, 16).to(memory_format=torch.channels_last), []
    for layer in pair:
        with torch.no_grad(), Called() as called:
            layer.eval()(features)
        names.append(called.names)
    assert names[0] == names[1]


def test_a_dilated_map_is_laid_out_as_its_neighbours_expect() -> None:
    layer = DepthwiseConv2d(6, 6, 3, 1, 4, 4, groups=6)
    features = torch.randn(2, 6, 11, 13).to(memory_format=torch.channels_last)
    assert layer(features).is_contiguous(memory_format=torch.channels_last)  # a norm takes longer otherwise

"""Layers that compute otherwise while they train on a CPU: torch's own are the reference, in values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from roadseg.nets.cpu_layers import BiasedConvTranspose2d, DepthwiseConv2d, PReLU


def depthwise(outputs: int, kernel: int, stride: int, dilation: int) -> tuple[nn.Module, nn.Module]:
    padding = dilation * (kernel // 2)
    theirs = nn.Conv2d(6, outputs, kernel, stride, padding, dilation, groups=6, bias=False)
    return theirs, DepthwiseConv2d(6, outputs, kernel, stride=stride, dilation=dilation)


LAYERS = {
    "prelu": lambda: (nn.PReLU(6), PReLU(6)),
    "stride": lambda: depthwise(6, 3, 2, 1),
    "stride, two outputs a channel": lambda: depthwise(12, 3, 2, 1),
    "dilation 2": lambda: depthwise(6, 3, 1, 2),
    "dilation 4, two outputs a channel": lambda: depthwise(12, 3, 1, 4),
    "5x5, dilation 3": lambda: depthwise(6, 5, 1, 3),
    "transposed": lambda: (nn.ConvTranspose2d(6, 11, 3, 2, 1, 1), BiasedConvTranspose2d(6, 11, 3, 2, 1, 1)),
    "transposed 2x2": lambda: (nn.ConvTranspose2d(6, 11, 2, 2), BiasedConvTranspose2d(6, 11, 2, 2)),
}


@pytest.fixture(params=LAYERS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """torch's layer and ours, with the same weights."""
    torch.manual_seed(0)
    reference, layer = LAYERS[request.param]()
    if isinstance(reference, nn.PReLU):
        nn.init.uniform_(reference.weight, -0.5, 1.5)  # a slope of its own for each channel, below 0 and above 1 too
    layer.load_state_dict(reference.state_dict())
    return reference, layer


class Called(TorchDispatchMode):
    """Which operations were run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def called(layer: nn.Module, features: Tensor) -> list[str]:
    with Called() as found:
        layer(features)
    return found.names


def gradients(layer: nn.Module, features: Tensor) -> list[Tensor]:
    """The output, the features' gradient and each parameter's."""
    features = features.clone().requires_grad_()
    layer.zero_grad()
    made = layer(features)
    made.backward(torch.linspace(-1, 1, made.numel(), dtype=torch.float64).reshape(made.shape).to(made.dtype))
    return [made.detach(), features.grad, *(one.grad for one in layer.parameters())]


def test_torchs_own_computation_is_left_only_in_training(pair: tuple[nn.Module, nn.Module]) -> None:
    reference, layer = pair
    features = torch.randn(1, 6, 12, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert called(layer, features) != called(reference, features)
        assert called(layer, features.contiguous()) == called(reference, features.contiguous())
        with torch.no_grad():
            assert called(layer, features) == called(reference, features)
        assert called(layer.eval(), features) == called(reference.eval(), features)


@pytest.mark.parametrize("size", [(12, 16), (11, 13)])
def test_values_and_gradients_are_torchs(pair: tuple[nn.Module, nn.Module], size: tuple[int, int]) -> None:
    reference, layer = (one.double() for one in pair)
    features = torch.randn(2, 6, *size, dtype=torch.float64).to(memory_format=torch.channels_last)
    features[0, 0, 0, :3] = 0  # where a PReLU's gradient is the slope
    wanted, found = gradients(reference, features), gradients(layer, features)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32])
def test_under_autocast_too(pair: tuple[nn.Module, nn.Module], given: torch.dtype) -> None:
    reference, layer = pair
    features = torch.randn(2, 6, 11, 13).to(torch.bfloat16).to(given).to(memory_format=torch.channels_last)
    wanted = gradients(reference, features.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, features)
    assert found[0].dtype == torch.bfloat16, "as autocast makes it of torch's"
    for one, other in zip(wanted, found, strict=True):
        worst = (other.float() - one).abs().max()
        assert worst <= 0.02 * one.abs().max()  # bfloat16 has 8 bits


def test_half_of_a_split_map() -> None:
    features = torch.randn(2, 12, 11, 13).to(memory_format=torch.channels_last)
    for reference, layer in (LAYERS["prelu"](), depthwise(6, 3, 1, 4)):
        layer.load_state_dict(reference.state_dict())
        wanted, found = (one(features.chunk(2, dim=1)[1]) for one in (reference, layer))
        torch.testing.assert_close(found, wanted)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_dilation_as_large_as_the_map_is_left_to_torch() -> None:
    reference, layer = depthwise(6, 3, 1, 7)
    features = torch.randn(2, 6, 11, 13).to(memory_format=torch.channels_last)
    assert called(layer, features) == called(reference, features)


def test_one_slope_for_all_channels_is_left_to_torch() -> None:
    reference, layer = nn.PReLU(), PReLU()
    features = torch.randn(2, 6, 11, 13).to(memory_format=torch.channels_last)
    for wanted, found in zip(gradients(reference, features), gradients(layer, features), strict=True):
        torch.testing.assert_close(found, wanted)


def test_even_kernels_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel"):
        DepthwiseConv2d(6, 6, 2)

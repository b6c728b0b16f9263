"""Layers that compute otherwise while they train on a CPU: torch's own are the reference, in values and gradients."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from roadseg.nets.cpu_layers import (
    BatchNorm2d,
    BiasedConvTranspose2d,
    DepthwiseConv2d,
    Dropout,
    PReLU,
)
from tests.compiler import COMPILER


def depthwise(outputs: int, kernel: int, stride: int, dilation: int) -> tuple[nn.Module, nn.Module]:
    padding = dilation * (kernel // 2)
    theirs = nn.Conv2d(6, outputs, kernel, stride, padding, dilation, groups=6, bias=False)
    return theirs, DepthwiseConv2d(6, outputs, kernel, stride=stride, dilation=dilation)


LAYERS = {
    "prelu": lambda: (nn.PReLU(6), PReLU(6)),
    "norm": lambda: (nn.BatchNorm2d(6), BatchNorm2d(6)),
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
    """Forwards, and backwards where there is a gradient."""
    with Called() as found:
        made = layer(features.detach().requires_grad_(torch.is_grad_enabled()))
        if made.requires_grad:
            made.sum().backward()
    return found.names


def gradients(layer: nn.Module, features: Tensor) -> list[Tensor]:
    """The output, the features' gradient and each parameter's, and what a norm remembers of the features."""
    features = features.clone().requires_grad_()
    layer.zero_grad()
    made = layer(features)
    made.backward(torch.linspace(-1, 1, made.numel(), dtype=torch.float64).reshape(made.shape).to(made.dtype))
    return [made.detach(), features.grad, *(one.grad for one in layer.parameters()), *layer.buffers()]


def test_torchs_own_computation_is_left_only_in_training(pair: tuple[nn.Module, nn.Module]) -> None:
    reference, layer = pair
    if isinstance(layer, (PReLU, BatchNorm2d)) and not COMPILER:
        pytest.skip("no C++ compiler")
    features = torch.randn(1, 6, 12, 16).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        assert called(layer, features) != called(reference, features)
        assert called(layer, features.contiguous()) == called(reference, features.contiguous())
        with torch.no_grad():
            assert called(layer, features) == called(reference, features)
        assert called(layer.eval(), features) == called(reference.eval(), features)


@pytest.mark.parametrize("size", [(12, 16), (11, 13)])
@pytest.mark.parametrize(("dtype", "digits"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])  # kernels: float32 alone
def test_values_and_gradients_are_torchs(
    pair: tuple[nn.Module, nn.Module], size: tuple[int, int], dtype: torch.dtype, digits: float
) -> None:
    reference, layer = (one.to(dtype) for one in pair)
    features = torch.randn(2, 6, *size, dtype=dtype).to(memory_format=torch.channels_last)
    features[0, 0, 0, :3] = 0  # where a PReLU's gradient is the slope
    wanted, found = gradients(reference, features), gradients(layer, features)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=digits, atol=digits)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float32])
def test_under_autocast_too(pair: tuple[nn.Module, nn.Module], given: torch.dtype) -> None:
    reference, layer = pair
    features = torch.randn(2, 6, 11, 13).to(torch.bfloat16).to(given).to(memory_format=torch.channels_last)
    wanted = gradients(reference, features.float())
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(layer, features)
        assert found[0].dtype == copy.deepcopy(reference)(features).dtype, "as autocast makes it of torch's"
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


# Dropout


def test_dropout_takes_each_feature_with_its_probability_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    features = torch.ones(4, 10, 61, 83).to(memory_format=torch.channels_last).requires_grad_()  # not a multiple of 4
    made = Dropout(0.3)(features)
    dropped = made == 0
    share = round(0.3 * 2**16) / 2**16
    torch.testing.assert_close(made[~dropped], torch.full_like(made[~dropped], 1 / (1 - share)))
    count = dropped.numel()
    for dims in ((), 0, 1):  # of all, of each image, of each channel: within five standard deviations
        of = count if dims == () else count // dropped.shape[dims]
        found = dropped.float().mean() if dims == () else dropped.transpose(0, dims).flatten(1).float().mean(dim=1)
        assert (found - share).abs().max() < 5 * (share * (1 - share) / of) ** 0.5
    for dim in range(4):  # neighbours in any direction are drawn apart
        one, other = (dropped.narrow(dim, first, dropped.shape[dim] - 1).flatten().float() for first in (0, 1))
        assert torch.corrcoef(torch.stack([one, other]))[0, 1].abs() < 5 / len(one) ** 0.5
    made.backward(torch.full_like(made, 2.0))
    torch.testing.assert_close(features.grad, 2 * made.detach())


def test_dropout_follows_torchs_seed() -> None:
    features = torch.randn(2, 6, 11, 13).to(torch.bfloat16).to(memory_format=torch.channels_last)
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(Dropout(0.5)(features))
    assert made[0].equal(made[1])
    assert not made[0].equal(made[2])
    assert made[0].dtype == torch.bfloat16
    assert made[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("probability", [0.0, 1e-6, 1 - 1e-6, 1.0])
def test_dropout_of_nothing_and_of_all(probability: float) -> None:
    features = torch.randn(2, 6, 11, 13).to(memory_format=torch.channels_last)
    made = Dropout(probability)(features)
    torch.testing.assert_close(made, features * (probability < 0.5), rtol=1e-4, atol=0)


def test_torchs_own_dropout_is_left_only_in_training() -> None:
    features = torch.randn(1, 6, 12, 16).to(memory_format=torch.channels_last)
    layer, reference = Dropout(0.1), nn.Dropout(0.1)
    assert called(layer, features) != called(reference, features)
    assert called(layer, features.contiguous()) == called(reference, features.contiguous())
    assert called(layer.eval(), features) == called(reference.eval(), features)
    with torch.no_grad():
        assert layer(features) is features

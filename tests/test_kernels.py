"""The C++ against torch's own computation in float64, in values and gradients, and what is done without a compiler."""

import ctypes
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import Function
from torch.nn import functional

from roadseg import kernels, losses
from roadseg.kernels import library
from roadseg.labels import IGNORE
from roadseg.losses.pixels import Pixels
from roadseg.nets import cpu_layers
from tests.compiler import needs_compiler

ACTIVATIONS = ["none", "relu", "prelu"]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def random_maps(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(dtype).to(memory_format=torch.channels_last)


def assert_near(found: Tensor, wanted: Tensor, share: float) -> None:
    """Within `share` of the largest number."""
    assert (found.double() - wanted).abs().max() <= share * wanted.abs().max() + 1e-12


# Norms and activations. 300 channels are wider than a tile; 6 * 13 * 7 * 11 positions end in the middle of one.


def normed(features: Tensor, weight: Tensor, bias: Tensor, slope: Tensor) -> Tensor:
    """In float64."""
    made = functional.batch_norm(features.double(), None, None, weight.double(), bias.double(), training=True)
    return functional.prelu(made, slope.double())


@needs_compiler
@pytest.mark.parametrize("shape", [(6, 3, 13, 7), (6, 8, 13, 7), (2, 300, 5, 3), (4, 1, 40, 50), (2, 16, 3, 1)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_torchs(shape: tuple[int, ...], activation: str, dtype: torch.dtype, threads: int) -> None:
    torch.manual_seed(0)
    features = (random_maps(*shape, dtype=dtype) * 3 + 1).requires_grad_()
    weight, bias = torch.rand(shape[1]).add(0.5).requires_grad_(), torch.randn(shape[1], requires_grad=True)
    slopes = {"none": torch.ones(shape[1]), "relu": torch.zeros(shape[1]), "prelu": torch.rand(shape[1]) * 2 - 0.5}
    slope = slopes[activation].requires_grad_(activation == "prelu")
    inputs = features, weight, bias, *([slope] if slope.requires_grad else [])
    running = torch.full((shape[1],), 5.0), torch.full((shape[1],), 7.0)
    own = slope if slope.requires_grad else None
    made = kernels.Norm.apply(features, weight, bias, *running, 0.25, 1e-5, activation, own)
    wanted = normed(features, weight, bias, slope)
    digits = 2**-8 if dtype == torch.bfloat16 else 1e-6
    assert made.dtype == dtype
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert_near(made, wanted, digits)
    assert_near(running[0], 0.75 * 5 + 0.25 * features.double().mean(dim=(0, 2, 3)), 1e-6)
    assert_near(running[1], 0.75 * 7 + 0.25 * features.double().var(dim=(0, 2, 3)), 1e-6)
    given = torch.randn(made.shape).to(dtype).to(memory_format=torch.channels_last)
    found = torch.autograd.grad(made, inputs, given)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, given.double()), strict=True):
        assert_near(one, other.double(), 2 * digits if one is found[0] and dtype == torch.bfloat16 else 1e-5)


@needs_compiler
@pytest.mark.parametrize("shape", [(6, 3, 13, 7), (3, 8, 13, 7), (2, 300, 5, 3), (4, 1, 40, 50), (2, 16, 3, 1)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_with_dropout_and_shortcut_are_torchs(
    shape: tuple[int, ...], activation: str, added: bool, dtype: torch.dtype, threads: int
) -> None:
    torch.manual_seed(0)
    features, shortcut = ((random_maps(*shape, dtype=dtype) * 3 + 1).requires_grad_() for _ in range(2))
    weight, bias = torch.rand(shape[1]).add(0.5).requires_grad_(), torch.randn(shape[1], requires_grad=True)
    slope = torch.rand(shape[1]).mul(2).sub(0.5).requires_grad_() if activation == "prelu" else None
    kept = torch.randint(0, 3, shape[:2]) / 2.0
    kept[0, 0] = 0
    inputs = [features, weight, bias, *([] if slope is None else [slope]), *([shortcut] * added)]
    running = torch.zeros(shape[1]), torch.ones(shape[1])
    after = activation, slope, shortcut if added else None, kept
    made = kernels.Norm.apply(features, weight, bias, *running, 0.1, 1e-5, *after)
    wanted = normed(features, weight, bias, torch.ones(shape[1])) * kept.double()[..., None, None]
    wanted = wanted + shortcut.double() * added
    if activation != "none":
        wanted = wanted.relu() if slope is None else functional.prelu(wanted, slope.double())
    digits = 2**-8 if dtype == torch.bfloat16 else 1e-6
    assert made.dtype == dtype
    assert_near(made, wanted, digits)
    given = torch.randn(made.shape).to(dtype).to(memory_format=torch.channels_last)
    found = torch.autograd.grad(made, inputs, given)
    for one, other in zip(found, torch.autograd.grad(wanted, inputs, given.double()), strict=True):
        rounded = dtype == torch.bfloat16 and one.shape == features.shape
        assert_near(one, other.double(), 2 * digits if rounded else 1e-5)
    if added:
        assert found[-1].dtype == dtype


def variance(features: Tensor) -> Tensor:
    """By the kernel."""
    channels = features.shape[1]
    found, ones, zeros = torch.zeros(channels), torch.ones(channels), torch.zeros(channels)
    kernels.Norm.apply(features, ones, zeros, zeros.clone(), found, 1.0, 1e-5)
    return found


@needs_compiler
@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("first", [0.0, 300.0, 10_000.0])
def test_neither_a_far_mean_nor_a_far_pixel_costs_a_variance_its_digits(mean: float, first: float) -> None:
    features = random_maps(4, 8, 90, 120) + mean
    features[0, :, 0, 0] += first
    assert_near(variance(features), features.double().var(dim=(0, 2, 3)), 1e-5)


@needs_compiler
def test_a_sum_over_a_million_positions_loses_nothing(threads: int) -> None:
    features = torch.rand(4, 2, 500, 520).to(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.ones(2), torch.zeros(2, requires_grad=True)
    mean = torch.zeros(2)
    made = kernels.Norm.apply(features, weight, bias, mean, torch.zeros(2), 1.0, 1e-5)
    assert_near(mean, features.double().mean(dim=(0, 2, 3)), 1e-7)
    made.backward(torch.full_like(made, 1.0))
    assert bias.grad is not None
    assert bias.grad.tolist() == [1_040_000.0, 1_040_000.0]


@needs_compiler
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_no_number_stays_none(broken: float, dtype: torch.dtype, activation: str) -> None:
    features = random_maps(2, 5, 7, 9, dtype=dtype)
    features[1, 2, 3, 4] = broken
    ones, running = torch.ones(5), [torch.zeros(5), torch.ones(5)]
    slope = ones if activation == "prelu" else None
    made = kernels.Norm.apply(features, ones, ones, *running, 0.1, 1e-5, activation, slope)
    assert [one.isfinite().tolist() for one in running] == [[True, True, False, True, True]] * 2
    assert not made[:, 2].isfinite().any()
    assert made[:, [0, 1, 3, 4]].isfinite().all()
    assert kernels.PReLU.apply(features, ones)[1, 2, 3, 4].isfinite().logical_not()


@needs_compiler
@pytest.mark.parametrize("shape", [(6, 3, 13, 7), (2, 300, 5, 3), (4, 16, 45, 60)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prelu_is_torchs_to_the_last_bit(shape: tuple[int, ...], dtype: torch.dtype, threads: int) -> None:
    torch.manual_seed(0)
    features, slope = random_maps(*shape, dtype=dtype).requires_grad_(), torch.randn(shape[1], requires_grad=True)
    with torch.no_grad():
        features[0, 0, 0, :3] = 0  # where the gradient is the slope
    made = kernels.PReLU.apply(features, slope)
    wanted = functional.prelu(features.float(), slope)
    assert made.equal(wanted.to(dtype)), "rounded to the nearest, as torch does"
    given = torch.randn(made.shape).to(dtype).to(memory_format=torch.channels_last)
    found = torch.autograd.grad(made, (features, slope), given)
    exact = torch.autograd.grad(functional.prelu(features.double(), slope.double()), (features, slope), given.double())
    assert found[0].equal(torch.autograd.grad(wanted, features, given.float())[0])
    assert_near(found[1], exact[1].double(), 1e-6)


@needs_compiler
def test_a_gradient_of_another_layout_is_read_rightly() -> None:
    features = random_maps(2, 6, 11, 13).requires_grad_()
    given = torch.randn(2, 6, 11, 13)
    parameters = [torch.rand(6) for _ in range(4)]
    for made in (kernels.Norm.apply(features, *parameters, 0.1, 1e-5), kernels.PReLU.apply(features, parameters[0])):
        one, other = (
            torch.autograd.grad(made, features, layout, retain_graph=True)[0]
            for layout in (given, given.to(memory_format=torch.channels_last))
        )
        assert one.equal(other)


@needs_compiler
def test_the_same_twice(threads: int) -> None:
    features = random_maps(4, 24, 45, 60, dtype=torch.bfloat16).requires_grad_()
    runs = []
    for _ in range(2):
        parameters = [torch.linspace(0.1, 1, 24, requires_grad=True) for _ in range(3)]
        weight, bias, slope = parameters
        running = torch.zeros(24), torch.ones(24)
        made = kernels.Norm.apply(features, weight, bias, *running, 0.1, 1e-5, "prelu", slope, features)
        runs.append([made, *torch.autograd.grad(made, (features, *parameters), made)])
    assert all(one.equal(other) for one, other in zip(*runs))


@needs_compiler
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_layers_that_are_joined_are_the_layers(activation: str) -> None:
    torch.manual_seed(0)
    chosen = {"none": [], "relu": [nn.ReLU(inplace=True)], "prelu": [cpu_layers.PReLU(6)]}[activation]
    theirs = [nn.ReLU() if isinstance(one, nn.ReLU) else nn.PReLU(6) for one in chosen]
    ours = cpu_layers.Sequential(nn.Conv2d(3, 6, 1), cpu_layers.BatchNorm2d(6), *chosen)
    reference = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), *theirs)
    reference.load_state_dict(ours.state_dict())
    for _ in range(2):  # the running statistics go on from their own
        features = random_maps(2, 3, 11, 13)
        made, wanted = ours(features), reference(features)
        torch.testing.assert_close(made, wanted)
        assert type(made.grad_fn).__name__ == "NormBackward", "the last layer is part of the norm's kernel"
        given = torch.randn_like(made)
        for one, other in zip(
            torch.autograd.grad(made, [*ours.parameters()], given),
            torch.autograd.grad(wanted, [*reference.parameters()], given),
        ):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    for one, other in zip(ours.state_dict().values(), reference.state_dict().values()):
        torch.testing.assert_close(one, other)
    ours.eval(), reference.eval()
    torch.testing.assert_close(ours(features), reference(features))


class Residual(nn.Module):
    """A branch's end; by torch's own layers where it does not train."""

    def __init__(self, activation: nn.Module | None, p: float) -> None:
        super().__init__()
        inner = cpu_layers.Sequential(nn.Conv2d(6, 6, 1), cpu_layers.BatchNorm2d(6))
        self.branch = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), nn.ReLU(), inner)
        self.dropout, self.activation = nn.Dropout2d(p), activation

    def forward(self, features: Tensor, shortcut: Tensor) -> Tensor:
        made: Tensor = self.branch(features, shortcut=shortcut, dropout=self.dropout, activation=self.activation)
        return made

    def by_torch(self, features: Tensor, shortcut: Tensor) -> Tensor:
        first, _, (conv, last) = self.branch
        reference = nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), conv, nn.BatchNorm2d(6), self.dropout)
        reference[0].load_state_dict(first.state_dict()), reference[3].load_state_dict(last.state_dict())
        made: Tensor = shortcut + reference.train(self.training)(features)
        return made if self.activation is None else self.activation(made)


@needs_compiler
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_branchs_end_takes_shortcut_dropout_and_activation(activation: str, p: float) -> None:
    torch.manual_seed(0)
    block = Residual({"none": None, "relu": nn.ReLU(), "prelu": cpu_layers.PReLU(6)}[activation], p)
    features, shortcut = (random_maps(5, 6, 11, 13).requires_grad_() for _ in range(2))
    given = random_maps(5, 6, 11, 13)
    made = block(features, shortcut)
    assert type(made.grad_fn).__name__ == "NormBackward"
    found = torch.autograd.grad(made, (features, shortcut), given)
    torch.manual_seed(1)
    made = block(features, shortcut)
    torch.manual_seed(1)  # its dropout is what torch draws
    torch.testing.assert_close(made, block.by_torch(features, shortcut))
    if p in (0, 1):
        wanted = torch.autograd.grad(block.by_torch(features, shortcut), (features, shortcut), given)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    block.eval()
    torch.testing.assert_close(block(features, shortcut), block.by_torch(features, shortcut), rtol=0, atol=0)


@needs_compiler
def test_what_is_dropped_below_float32_is_scaled_in_float32() -> None:
    norm, features = cpu_layers.BatchNorm2d(6), random_maps(9, 6, 11, 13, dtype=torch.bfloat16)
    given = random_maps(9, 6, 11, 13, dtype=torch.bfloat16)
    made = norm(features, dropout=nn.Dropout2d(0.4))
    kept = made.detach().abs().amax(dim=(2, 3), keepdim=True).gt(0) / 0.6  # in bfloat16, 1 / 0.6 is off by 1e-3
    plain = functional.batch_norm(features.double(), None, None, training=True)
    [found] = torch.autograd.grad(made, norm.weight, given)
    assert_near(found, (kept.double() * given.double() * plain).sum(dim=(0, 2, 3)), 1e-5)


@needs_compiler
def test_a_shortcut_that_a_kernel_does_not_take() -> None:
    norm = cpu_layers.BatchNorm2d(6)
    features = random_maps(2, 6, 11, 13)
    for shortcut in (torch.randn(2, 6, 11, 13), random_maps(2, 6, 11, 13, dtype=torch.bfloat16), torch.randn(6, 1, 1)):
        made = norm(features, nn.ReLU(), shortcut=shortcut)
        torch.testing.assert_close(made, (shortcut + nn.BatchNorm2d(6)(features)).relu())


@pytest.mark.parametrize("last", [nn.ReLU(), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6), cpu_layers.BatchNorm2d(6)])
def test_an_end_that_no_kernel_computes(last: nn.Module) -> None:
    """An activation that they do not know, and, but for the last, no norm of ours before it."""
    branch = cpu_layers.Sequential(nn.Conv2d(6, 6, 1), cpu_layers.BatchNorm2d(6), last)
    features, shortcut = random_maps(2, 6, 11, 13), random_maps(2, 6, 11, 13)
    made = branch(features, shortcut=shortcut, dropout=nn.Dropout2d(0.0), activation=nn.Tanh())
    torch.testing.assert_close(made, (shortcut + nn.Sequential(*branch)(features)).tanh())


@needs_compiler
def test_an_activation_that_stands_twice_is_applied_twice() -> None:
    relu = nn.ReLU()
    conv = nn.Conv2d(6, 6, 1)
    ours = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), relu, conv, relu)
    features = random_maps(2, 6, 11, 13)
    torch.testing.assert_close(ours(features), conv(nn.BatchNorm2d(6)(features).relu()).relu())


def test_a_norm_of_one_position_is_refused_as_torch_does() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        cpu_layers.BatchNorm2d(6)(random_maps(1, 6, 1, 1))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_another_type_are_left_to_torch(dtype: torch.dtype) -> None:
    layer, reference = cpu_layers.BatchNorm2d(6).to(dtype), nn.BatchNorm2d(6).to(dtype)
    features = random_maps(2, 6, 11, 13, dtype=dtype)
    assert layer(features).equal(reference(features))
    joined = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), cpu_layers.PReLU(6).to(dtype))
    with pytest.raises(RuntimeError, match="prelu"):  # torch's refusal, not a slope read as another type
        joined(random_maps(2, 6, 11, 13))


@needs_compiler
def test_parameters_that_do_not_fit() -> None:
    features = random_maps(2, 6, 11, 13)
    assert kernels.maps.fit(features, torch.rand(6))
    for other in (
        torch.rand(5),
        torch.rand(1),
        torch.rand(6, 2)[:, 0],
        torch.rand(1).expand(6),
        torch.rand(6).double(),
    ):
        assert not kernels.maps.fit(features, other)
    for layout in (features.contiguous(), features[:, :, :, ::2], features.double()):
        assert not kernels.maps.fit(layout)


# Cross-entropy, and sums over each class's region


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return functional.nll_loss(logits.log_softmax(dim=1), target, ignore_index=IGNORE, reduction="none")


def regions(logits: Tensor, target: Tensor) -> Tensor:
    labelled = target != IGNORE
    probabilities = logits.softmax(dim=1).movedim(1, 3)[labelled]
    truth = functional.one_hot(target[labelled], logits.shape[1]).to(logits.dtype)
    return torch.stack([(probabilities * truth).sum(dim=0), probabilities.sum(dim=0), truth.sum(dim=0)])


REFERENCES = {kernels.CrossEntropy: cross_entropy, kernels.Regions: regions}
OF_LOGITS = pytest.mark.parametrize("kernel", REFERENCES)


@needs_compiler
@OF_LOGITS
@pytest.mark.parametrize("classes", [1, 2, 11, 66])
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (45, 61)])
@pytest.mark.parametrize("spread", [0.0, 1.0, 60.0, 3000.0])
def test_what_is_computed_of_logits_is_torchs(
    kernel: type[Function], classes: int, size: tuple[int, int], spread: float, threads: int
) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(3, classes, *size) * spread).requires_grad_()
    target = torch.randint(0, classes, (3, *size))
    target[torch.rand(target.shape) < 0.2] = IGNORE
    found = kernel.apply(logits, target, IGNORE)
    exact = logits.detach().double().requires_grad_()
    wanted = REFERENCES[kernel](exact, target)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-6, atol=1e-6)
    if kernel is kernels.CrossEntropy:
        assert not found[target == IGNORE].any()
    given = torch.randn(found.shape)
    (gradient,) = torch.autograd.grad(found, logits, given)
    (of_exact,) = torch.autograd.grad(wanted, exact, given.double())
    torch.testing.assert_close(gradient.double(), of_exact, rtol=1e-4, atol=3e-6)
    assert not gradient.movedim(1, 3)[target == IGNORE].any()


SIZES = [
    ((5, 7), (40, 56)),  # by eight
    ((5, 7), (33, 50)),
    ((1, 1), (8, 4)),
    ((6, 1), (6, 9)),  # in one direction
    ((2, 3), (3, 1100)),  # of rows that are longer than a tile
    ((9, 12), (4, 5)),  # smaller: rows that lie between the same two are none or one
]


@needs_compiler
@OF_LOGITS
@pytest.mark.parametrize(("old", "new"), SIZES)
@pytest.mark.parametrize("spread", [1.0, 60.0])
def test_what_is_computed_of_enlarged_logits_is_torchs(
    kernel: type[Function], old: tuple[int, int], new: tuple[int, int], spread: float, threads: int
) -> None:
    torch.manual_seed(0)
    logits = (torch.randn(3, 11, *old) * spread).requires_grad_()
    target = torch.randint(0, 11, (3, *new))
    target[torch.rand(target.shape) < 0.2] = IGNORE
    found = kernel.apply(logits, target, IGNORE)
    exact = logits.detach().double().requires_grad_()
    wanted = REFERENCES[kernel](functional.interpolate(exact, size=new, mode="bilinear"), target)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6 * spread)
    given = torch.randn(found.shape)
    (gradient,) = torch.autograd.grad(found, logits, given)
    (of_exact,) = torch.autograd.grad(wanted, exact, given.double())
    torch.testing.assert_close(gradient.double(), of_exact, rtol=1e-4, atol=1e-5 * spread)


@needs_compiler
@OF_LOGITS
def test_of_enlarged_logits_it_is_the_same_by_any_number_of_threads(
    kernel: type[Function], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 5, 7, 9, requires_grad=True), torch.randint(0, 5, (3, 50, 71))
    found = []
    for count in (1, 2, 5, 40):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        made = kernel.apply(logits, target, IGNORE)
        found.append((made, *torch.autograd.grad(made.square().sum(), logits)))
    assert all(one.equal(other) for again in found[1:] for one, other in zip(found[0], again))


@needs_compiler
@pytest.mark.parametrize("size", [(40, 60), (5, 8)])
def test_the_losses_take_it(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.randn(1, 5, *size, requires_grad=True), torch.randint(0, 5, (1, 40, 60))
    by_kernel = Pixels(logits.to(memory_format=torch.channels_last), target).negative_log
    monkeypatch.setattr(Pixels, "fit_kernels", False)
    by_torch = Pixels(logits, target).negative_log
    assert type(by_kernel.grad_fn).__name__ == "CrossEntropyBackward"
    assert type(by_torch.grad_fn).__name__ != "CrossEntropyBackward"
    torch.testing.assert_close(by_kernel, by_torch, rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("name", [name for name in losses.LOSSES if name != "lovasz"])
def test_no_logits_of_the_targets_size_are_made(name: str) -> None:
    loss = losses.build(name, {"enet": [1.0, 2.0, 3.0, 4.0, 5.0]})
    logits, target = torch.randn(1, 5, 5, 8, requires_grad=True), torch.randint(0, 5, (1, 40, 60))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        loss(logits, target).backward()
    assert not [event.key for event in profile.key_averages() if "upsample" in event.key]


@needs_compiler
def test_the_sum_of_a_pixels_gradient_is_zero() -> None:
    logits, target = torch.randn(2, 19, 30, 40, requires_grad=True), torch.randint(0, 19, (2, 30, 40))
    (found,) = torch.autograd.grad(kernels.CrossEntropy.apply(logits, target, IGNORE).sum(), logits)
    assert found.sum(dim=1).abs().max() < 1e-6


@needs_compiler
def test_logits_that_are_no_numbers_make_a_loss_that_is_none() -> None:
    for broken in (float("nan"), float("inf")):
        logits = torch.randn(1, 5, 4, 6)
        logits[0, 3, 2, 2] = broken
        found = kernels.CrossEntropy.apply(logits, torch.zeros(1, 4, 6, dtype=torch.int64), IGNORE)
        assert found.isfinite().sum() == 23
        assert not found[0, 2, 2].isfinite()


@needs_compiler
def test_an_ignored_class_counts_nowhere() -> None:
    logits, target = torch.randn(2, 5, 9, 13, requires_grad=True), torch.randint(0, 5, (2, 9, 13))
    moved = torch.where(target == 3, IGNORE, target)
    for kernel in (kernels.CrossEntropy, kernels.Regions):
        found, wanted = (kernel.apply(logits, *given) for given in ((target, 3), (moved, IGNORE)))
        assert found.equal(wanted)
        assert torch.autograd.grad(found.sum(), logits)[0].equal(torch.autograd.grad(wanted.sum(), logits)[0])


@needs_compiler
@OF_LOGITS
@pytest.mark.parametrize("wrong", [-1, 5, 254, 256, 2**40])
def test_a_target_that_is_no_class_is_an_error(kernel: type[Function], wrong: int) -> None:
    target = torch.zeros(1, 4, 6, dtype=torch.int64)
    target[0, 1, 1] = wrong
    with pytest.raises(IndexError, match="5 classes nor 255"):
        kernel.apply(torch.randn(1, 5, 4, 6), target, IGNORE)
    with pytest.raises(IndexError):  # by way of the losses, as torch's own
        losses.build("cross_entropy")(torch.randn(1, 5, 4, 6), target)


@needs_compiler
@OF_LOGITS
@pytest.mark.parametrize("target", [torch.zeros(4, 6).long(), torch.zeros(2, 4, 6).long(), torch.zeros(1, 4, 6)])
def test_a_target_of_another_shape_or_type_is_refused(kernel: type[Function], target: Tensor) -> None:
    with pytest.raises(ValueError, match="must be float32 BCHW"):
        kernel.apply(torch.randn(1, 5, 4, 6), target, IGNORE)


@needs_compiler
@OF_LOGITS
@pytest.mark.parametrize("shape", [(1, 5), (5, 4, 6), (1, 5, 1, 4, 6), (1, 5, 0, 6)])
def test_logits_of_other_dimensions_are_refused(kernel: type[Function], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be float32 BCHW"):
        kernel.apply(torch.randn(*shape), torch.zeros(1, 4, 6, dtype=torch.int64), IGNORE)


@needs_compiler
@OF_LOGITS
def test_logits_of_another_layout_are_refused(kernel: type[Function]) -> None:
    logits, target = torch.randn(1, 5, 4, 6), torch.zeros(1, 4, 6, dtype=torch.int64)
    with pytest.raises(ValueError, match="contiguous"):
        kernel.apply(logits.to(memory_format=torch.channels_last), target, IGNORE)
    with pytest.raises(ValueError, match="contiguous"):
        kernel.apply(logits, torch.zeros(1, 6, 4, dtype=torch.int64).mT, IGNORE)


@needs_compiler
def test_cross_entropy_does_not_ask_what_torchs_default_type_is() -> None:
    logits, target = torch.randn(1, 5, 40, 60), torch.randint(0, 5, (1, 40, 60))
    wanted = kernels.CrossEntropy.apply(logits, target, IGNORE)
    torch.set_default_dtype(torch.float64)
    try:
        assert kernels.CrossEntropy.apply(logits, target, IGNORE).equal(wanted)
    finally:
        torch.set_default_dtype(torch.float32)


@needs_compiler
def test_regions_are_the_same_by_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(3, 11, 90, 61, requires_grad=True), torch.randint(0, 11, (3, 90, 61))
    given, found = torch.randn(3, 11), []
    for count in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        sums = kernels.Regions.apply(logits, target, IGNORE)
        found.append((sums, *torch.autograd.grad(sums, logits, given)))
    assert all(one.equal(other) for again in found[1:] for one, other in zip(found[0], again))


@needs_compiler
def test_a_region_of_millions_of_pixels_loses_none() -> None:
    """Added up in float32, tile by tile, they are wrong by 1e-6."""
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 1500, 2000), torch.randint(0, 3, (2, 1500, 2000))
    sums = kernels.Regions.apply(logits, target, IGNORE)
    torch.testing.assert_close(sums.double(), regions(logits.double(), target), rtol=2e-7, atol=0)


@needs_compiler
@pytest.mark.parametrize("name", ["soft_dice", "jaccard"])
@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_regions_of_logits_that_are_no_numbers_make_a_loss_that_is_none(name: str, broken: float) -> None:
    logits = torch.randn(1, 5, 4, 6)
    logits[0, 3, 2, 2] = broken
    assert losses.build(name)(logits, torch.zeros(1, 4, 6, dtype=torch.int64)).isnan()


@needs_compiler
@pytest.mark.parametrize("name", ["soft_dice", "jaccard"])
def test_losses_of_regions_take_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, target = torch.randn(2, 5, 40, 60, requires_grad=True), torch.randint(0, 5, (2, 40, 60))
    target[:, :9] = IGNORE
    by_kernel = losses.build(name)(logits, target)
    assert calls(losses.build("soft_dice + jaccard")(logits, target), "RegionsBackward") == 1, "they share their sums"
    monkeypatch.setattr(Pixels, "fit_kernels", False)
    by_torch = losses.build(name)(logits, target)
    assert [calls(value, "RegionsBackward") for value in (by_kernel, by_torch)] == [1, 0]
    torch.testing.assert_close(by_kernel, by_torch)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (by_kernel, by_torch)))


def calls(value: Tensor, name: str) -> int:
    """How many backward functions of that name led to it."""
    left, seen = [value.grad_fn], set()
    while left:
        if (node := left.pop()) and node not in seen:
            seen.add(node)
            left.extend(before for before, _ in node.next_functions)
    return sum(type(node).__name__ == name for node in seen)


# Gradients of gradients, which nothing here has


@needs_compiler
@OF_LOGITS
def test_a_second_derivative_is_refused(kernel: type[Function]) -> None:
    logits = torch.randn(1, 5, 4, 6, requires_grad=True)
    made = kernel.apply(logits, torch.zeros(1, 4, 6, dtype=torch.int64), IGNORE)
    weight = torch.rand(made.shape, requires_grad=True)
    (gradient,) = torch.autograd.grad((weight * made).sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


# The compiler


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The kernels' sources in a folder of their own, not compiled yet."""
    folder = tmp_path / "kernels"
    folder.mkdir()
    for file in library.FOLDER.glob("*.*"):
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(library, "FOLDER", folder)
    monkeypatch.setattr(library, "compiled", library.compiled.__wrapped__)
    return folder


@needs_compiler
def test_what_is_compiled_is_kept_until_its_source_changes(uncompiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[list[str]] = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **how: called.append(command) or run(command, **how))
    assert library.compiled()
    assert library.compiled()
    assert len(called) == 1
    (kept,) = (uncompiled / "__pycache__").iterdir()  # and nothing half done beside it
    assert kept.suffix == ".so"
    load, broken = ctypes.CDLL, [kept]

    def cut_short(path: str) -> ctypes.CDLL:
        if broken:
            raise OSError(f"{broken.pop()}: file too short")
        return load(path)

    with monkeypatch.context() as patched:
        patched.setattr(ctypes, "CDLL", cut_short)
        assert library.compiled()
    assert len(called) == 2
    (uncompiled / "maps.h").write_text("// another\n" + (uncompiled / "maps.h").read_text())
    assert library.compiled()
    assert len(called) == 3


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "env false", "'c++"])
def test_without_a_compiler_torch_does_the_work(
    compiler: str, uncompiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert library.compiled() is None
    assert not list((uncompiled / "__pycache__").glob("*"))
    features = random_maps(2, 6, 11, 13).requires_grad_()
    assert not kernels.usable(features)
    layer = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), cpu_layers.PReLU(6))
    reference = nn.Sequential(nn.BatchNorm2d(6), nn.PReLU(6))
    assert layer(features).equal(reference(features))
    target = torch.randint(0, 6, (2, 11, 13))
    torch.testing.assert_close(
        losses.build("cross_entropy")(features, target), functional.cross_entropy(features, target)
    )
    logits = features.detach().contiguous()
    torch.testing.assert_close(Pixels(logits, target).regions, regions(logits, target))
    large = torch.randint(0, 6, (2, 20, 30))
    wanted = functional.cross_entropy(functional.interpolate(features, size=(20, 30), mode="bilinear"), large)
    torch.testing.assert_close(losses.build("cross_entropy")(features, large), wanted)


@needs_compiler
@pytest.mark.parametrize("compiler", ["", "env c++ -O1"])
def test_a_compiler_may_have_arguments(compiler: str, uncompiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert library.compiled()


@needs_compiler
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*jit.trace:DeprecationWarning")
def test_tensors_without_memory_are_left_to_torch() -> None:
    layer = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), cpu_layers.PReLU(6))
    features = random_maps(2, 6, 11, 13)
    with FakeTensorMode() as mode:
        made = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), cpu_layers.PReLU(6))(mode.from_tensor(features))
    assert made.shape == features.shape
    traced = torch.jit.trace(layer, features, check_trace=False)
    assert "batch_norm" in str(traced.inlined_graph)


@needs_compiler
def test_a_trace_sees_torchs_own_operations() -> None:
    seen: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        seen.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    layer = cpu_layers.Sequential(cpu_layers.BatchNorm2d(6), nn.ReLU())
    features = random_maps(2, 6, 11, 13)
    traced = torch.compile(layer, backend=backend, fullgraph=True)(features)
    assert any("batch_norm" in name for name in seen)
    torch.testing.assert_close(traced, layer(features))

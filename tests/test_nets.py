"""The networks: sizes, published parameter counts, gradients, and ENet's unpooling against torch's own."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg import losses, nets
from roadseg.errors import UserError
from roadseg.nets.blocks import resize
from roadseg.nets.ddrnet import LEVELS, averaged
from roadseg.nets.enet import Down, Up
from roadseg.nets.pooling import PyramidPooling

EVERY = pytest.mark.parametrize("name", ["enet", "fastscnn", "ddrnet23slim"])
"""Those that are tested closely here; tests/test_nets_contract.py has the whole registry."""


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# At 19 classes, batch norms unfolded, training heads out. Fast-SCNN's paper does not give its pyramid's widths: read
# as PSPNet's, a quarter each, they make 2.5 % more than the published count.
@pytest.mark.parametrize(
    ("name", "published", "exact"),
    [("enet", 0.37e6, 365_474), ("fastscnn", 1.11e6, 1_137_795), ("ddrnet23slim", 5.7e6, 5_695_923)],
)
def test_parameters_are_the_published_ones(name: str, published: float, exact: int) -> None:
    net = nets.build(name, 19)
    count = parameters(net) - parameters(getattr(net, "heads", nn.Module()))
    assert count == pytest.approx(published, rel=0.03)
    assert count == exact


# 360 is a multiple of 8 but not of 16; 72x144 is half of streets; the last two are a multiple of nothing.
@EVERY
@pytest.mark.parametrize("size", [(144, 288), (360, 480), (72, 144), (104, 136), (65, 97), (33, 47)])
def test_logits_have_the_input_size(name: str, size: tuple[int, int]) -> None:
    net = nets.build(name, 11).eval()
    with torch.inference_mode():
        logits = net(images(1, *size))
    assert logits.shape == (1, 11, *size)
    assert logits.dtype == torch.float32


@EVERY
def test_training_gives_the_main_logits_first_then_the_heads(name: str) -> None:
    outputs = nets.build(name, 5)(images(2, 65, 97))
    main = (65, 97) if name == "enet" else (9, 13)
    assert outputs[0].shape == (2, 5, *main)
    assert [tuple(head.shape) for head in outputs[1:]] == [(2, 5, 9, 13)] * {"enet": 0, "fastscnn": 2}.get(name, 1)


@EVERY
def test_the_gradient_reaches_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, 4)
    sum(output.square().sum() for output in net(images(3, 72, 104))).backward()
    unreached = [
        key for key, parameter in net.named_parameters() if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert unreached == []


@EVERY
def test_training_starts_near_uniform_probabilities(name: str) -> None:
    torch.manual_seed(0)
    target = torch.randint(19, (4, 64, 96))
    loss = losses.build("cross_entropy")(nets.build(name, 19)(images(4, 64, 96))[0], target)
    assert loss.item() == pytest.approx(math.log(19), rel=0.2)


@pytest.mark.parametrize(
    "name", ["fastscnn", "ddrnet23slim"]
)  # enet takes the longest by far, and has no branch of 1x1
def test_a_small_crop_trains_and_the_running_statistics_serve(name: str) -> None:
    """Four crops of 32x64, whose map at 1/64 is one position: the network learns them, in evaluation mode as well."""
    torch.manual_seed(0)
    net = nets.build(name, 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    image = images(4, 32, 64) * 0.3
    target = (torch.arange(64) >= torch.tensor([16, 24, 40, 48])[:, None])[:, None].expand(4, 32, 64).long()
    image += target[:, None] * 2.0 - 1.0
    loss = losses.build("cross_entropy")
    for _ in range(60):  # after 30, DDRNet's running statistics still trail its weights: 0.69 to 0.96 over five seeds
        optimizer.zero_grad()
        loss(net(image)[0], target).backward()
        optimizer.step()
    with torch.inference_mode():
        agreement = (net.eval()(image).argmax(dim=1) == target).float().mean()
    assert agreement > 0.9


@EVERY
def test_one_scene_at_a_time_trains(name: str) -> None:
    """Batch norm refuses a single value a channel; nothing is normed after it was pooled to 1x1."""
    for output in nets.build(name, 3)(images(1, 64, 128)):
        assert output.isfinite().all()


@EVERY
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    torch.manual_seed(3)
    first = nets.build(name, 3).state_dict()
    torch.manual_seed(3)
    second = nets.build(name, 3).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@EVERY
def test_memory_layout_and_batch_do_not_change_the_logits(name: str) -> None:
    torch.manual_seed(0)
    net, batch = nets.build(name, 6).eval(), images(3, 72, 104)
    with torch.inference_mode():
        alone = torch.cat([net(image[None]) for image in batch])
        together = net.to(memory_format=torch.channels_last)(batch.to(memory_format=torch.channels_last))
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5 * alone.abs().max().item())


@EVERY
def test_bfloat16_autocast_works_both_ways(name: str) -> None:
    torch.manual_seed(0)
    net = nets.build(name, 4)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = net(images(2, 40, 64))
    sum(output.float().mean() for output in outputs).backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)


def test_an_unknown_network_is_answered_with_the_list() -> None:
    with pytest.raises(UserError, match="there is no network 'resnet': choose one of enet, fastscnn, "):
        nets.build("resnet", 19)


def test_unpooling_by_mask_is_max_unpooling() -> None:
    torch.manual_seed(0)
    down, up = Down(4, 16, 0.0).eval(), Up(16, 4, 0.0).eval()
    features, deep = torch.randn(2, 4, 10, 14), torch.randn(2, 16, 5, 7)
    _, indices = functional.max_pool2d(features, 2, return_indices=True)
    with torch.inference_mode():
        _, maxima = down(features)
        expected = up.activation(functional.max_unpool2d(up.main(deep), indices, 2) + up.branch(deep))
        torch.testing.assert_close(up(deep, maxima), expected)


def test_equal_maxima_all_get_the_value() -> None:
    _, maxima = Down(4, 16, 0.0).eval()(torch.ones(1, 4, 2, 2))
    assert maxima.all()


def test_the_pyramid_computes_what_pooling_last_would() -> None:
    torch.manual_seed(0)
    pyramid = PyramidPooling(8, 8, 1).train()
    pyramid(torch.randn(4, 8, 9, 12))  # so that the running statistics are not the identity
    pyramid.eval()
    features = torch.randn(2, 8, 9, 12)
    with torch.inference_mode():
        levels = [features]
        for bins, project in zip(pyramid.BINS, pyramid.projections):
            pooled = functional.relu(functional.adaptive_avg_pool2d(project(features), bins))
            levels.append(functional.interpolate(pooled, size=(9, 12), mode="bilinear"))
        torch.testing.assert_close(pyramid(features), pyramid.fuse(torch.cat(levels, dim=1)))


def test_dappm_of_a_flat_map_is_flat_whatever_the_size() -> None:
    """Windows that reach over the border average what is inside, so a constant stays that constant."""
    for size in [(1, 1), (3, 5), (12, 16)]:
        features = torch.full((1, 4, *size), 2.0)
        for level in range(LEVELS):
            torch.testing.assert_close(averaged(features, level).unique(), torch.tensor([2.0]))


def test_resize_leaves_what_fits_alone() -> None:
    features = images(1, 5, 7)
    assert resize(features, (5, 7)) is features
    assert resize(features, (10, 3)).shape == (1, 3, 10, 3)

"""The contract of every registered network, and its counts beside the published ones."""

from functools import cache

import pytest
import torch
from safetensors.torch import load, save
from torch import nn

from docs import zoo
from roadseg import nets
from roadseg.losses.pixels import Pixels
from roadseg.nets.published import PUBLISHED

EVERY = pytest.mark.parametrize("name", nets.NETS)
CLASSES = 5


@cache
def shapes(name: str) -> nn.Module:
    """The network without numbers: torch's meta device computes shapes alone."""
    with torch.device("meta"):
        return nets.build(name, CLASSES)


def seeded(name: str) -> nn.Module:
    torch.manual_seed(3)
    return nets.build(name, CLASSES)


def images(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@EVERY
def test_logits_have_the_inputs_size_and_training_heads_come_after(name: str) -> None:
    net = shapes(name)
    for size in [(360, 480), (375, 1242), (65, 97)]:
        image = torch.empty(2, 3, *size, device="meta")
        assert net.eval()(image).shape == (2, CLASSES, *size)
        main, *heads = net.train()(image)
        assert main.shape[:2] == (2, CLASSES)
        assert any(tuple(main.shape[2:]) == tuple(-(-side // stride) for side in size) for stride in (1, 2, 4, 8, 16))
        assert len(heads) == len(getattr(net, "heads", ()))
        for head in heads:
            assert head.shape[0] == 2 and head.shape[1] in (1, CLASSES)
            assert tuple(head.shape[2:]) == tuple(-(-side // 8) for side in size)


@EVERY
def test_what_a_loss_enlarges_in_training_is_what_is_answered(name: str) -> None:
    net, image = seeded(name).eval(), images(1, 65, 97)
    with torch.inference_mode():
        answer = net(image)
        net.training = True  # alone: its layers would norm by other statistics, and drop features
        assert Pixels(net(image)[0], torch.zeros(1, 65, 97).long()).logits.equal(answer)


@EVERY
def test_finite_gradients_reach_every_parameter_and_a_seed_gives_the_same_again(name: str) -> None:
    net, again = seeded(name), seeded(name)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in net.state_dict().items())
    scenes = images(4, 72, 104)  # two might both go past a layer that stochastic depth drops
    torch.manual_seed(5)  # of dropout
    outputs = net(scenes)
    torch.manual_seed(5)
    assert all(map(torch.equal, outputs, again(scenes)))
    sum(output.square().mean() for output in outputs).backward()
    unreached = [key for key, one in net.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    assert unreached == []
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters() if parameter.grad is not None)


@EVERY
def test_what_is_saved_says_the_same_in_another_layout_and_nearly_in_bfloat16(name: str) -> None:
    net, other = seeded(name).eval(), nets.build(name, CLASSES).eval()
    other.load_state_dict(load(save({key: value.contiguous() for key, value in net.state_dict().items()})))
    image = images(1, 65, 97)
    with torch.inference_mode():
        expected = net(image)
        found = other.to(memory_format=torch.channels_last)(image.contiguous(memory_format=torch.channels_last))
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(image).float()
    largest = expected.abs().max().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * largest)
    assert (rough - expected).abs().mean().item() < 0.05 * largest


@pytest.mark.parametrize("name", ["fastscnn", "fcn", "segformer_r18", "ddrnet23slim", "pidnet_s"])
def test_one_scene_trains_where_its_coarsest_map_has_two_positions(name: str) -> None:
    """The package's docstring: a side above 32, of those that go down to 1/64 above 64. Two scenes of any size do."""
    net, least = shapes(name).train(), 64 if name.startswith(("ddrnet", "pidnet")) else 32
    assert net(torch.empty(1, 3, least, least + 1, device="meta"))[0].shape[:2] == (1, CLASSES)
    assert net(torch.empty(2, 3, 32, 32, device="meta"))[0].shape[:2] == (2, CLASSES)
    if least == 64:
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            net(torch.empty(1, 3, 64, 64, device="meta"))


def test_everything_registered_is_published_somewhere() -> None:
    assert set(nets.NETS) <= set(PUBLISHED)


@EVERY
def test_counts_are_the_published_ones_or_say_why_not(name: str) -> None:
    known = PUBLISHED[name]
    further = zoo.differences(known, *zoo.counted(name))
    assert bool(further) == bool(known.differs), f"{name}: {further}, {zoo.counted(name)} against {known}"

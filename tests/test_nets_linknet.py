"""LinkNet: its decoder's stages, published count, and what is added to what."""

import pytest
import torch
from torch import nn

from roadseg.nets.backbones import resnet
from roadseg.nets.counts import parameters
from roadseg.nets.linknet import LinkNet
from tests.structure import sizes


# zh320's count of the paper's network: 11.54 M; the paper: 11.5 M.
@pytest.mark.parametrize(("depth", "published"), [(18, 11.54e6), (34, 11.54e6 + 21_284_672 - 11_176_512)])
def test_parameters_are_the_published_ones(depth: int, published: float) -> None:
    assert parameters(LinkNet(19, depth)) == pytest.approx(published, rel=0.001)


def test_the_stages_are_those_of_table_1() -> None:
    """Table 1's channels m -> n, at 352x640, the multiple of 32 next to the paper's 360x640 (figure 1: stage 1 keeps
    the size, the others halve it)."""
    names = [*(f"backbone.model.encoder.stages.{i}" for i in range(4)), *(f"decoders.{i}" for i in range(4))]
    seen = sizes(LinkNet(19), [*names, "fine.0", "fine", "classifier"], 352, 640)
    assert list(seen.values()) == [
        (64, 88, 160),
        (128, 44, 80),
        (256, 22, 40),
        (512, 11, 20),
        (256, 22, 40),  # decoder 4
        (128, 44, 80),
        (64, 88, 160),
        (64, 88, 160),  # decoder 1
        (32, 176, 320),
        (32, 176, 320),
        (19, 352, 640),
    ]
    hidden = [decoder[1][0].in_channels for decoder in LinkNet(19).decoders]
    assert hidden == [128, 64, 32, 16]


@pytest.mark.parametrize("depth", [18, 34])
def test_with_a_silent_decoder_every_stage_gives_back_what_it_was_given(depth: int) -> None:
    """Norms of weight and bias 0 leave the encoder's links only: the classifier then sees the stem's features."""
    torch.manual_seed(0)
    net = LinkNet(3, depth).eval()
    for decoder in net.decoders:
        nn.init.zeros_(decoder[-1][1].weight)
    seen = []
    net.fine.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        assert net(image).shape == (1, 3, 65, 97)
        torch.testing.assert_close(seen[0], net.backbone(image)[0])


def test_the_stem_comes_before_the_stages() -> None:
    torch.manual_seed(0)
    with_stem = resnet(18, stem=True).eval()
    without = resnet(18).eval()
    without.load_state_dict(with_stem.state_dict())
    image = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        stem, *stages = with_stem(image)
        assert stem.shape == (1, 64, 17, 25)
        torch.testing.assert_close(stem, without.model.embedder(image))
        torch.testing.assert_close(stages, without(image))
    assert with_stem.channels == (64, *without.channels)

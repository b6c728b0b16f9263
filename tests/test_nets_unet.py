"""U-Net: the stages of its figure 1 and the published counts of both forms."""

import pytest
import torch

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.unet import UNet
from tests.structure import sizes


def test_the_bilinear_form_is_that_of_paddleseg() -> None:
    """13.41 M and 253.75e9 multiply-adds at 512x1024 (its "FLOPs" are those): its classifier is a 3x3 convolution,
    64 * 19 * 8 weights more, at every pixel; and its convolutions have biases besides the norms, 3,968 numbers."""
    more = 64 * 19 * 8
    assert parameters(UNet(19)) + more + 3_968 == pytest.approx(13.41e6, rel=0.0005)
    assert multiply_adds(UNet(19), 512, 1024) + more * 512 * 1024 == pytest.approx(253.75e9, rel=0.005)
    assert multiply_adds(UNet(19), 512, 1024) == pytest.approx(253.75e9, rel=0.05)


def test_the_classic_form_is_the_papers() -> None:
    assert parameters(UNet(19, bilinear=False)) == pytest.approx(31.0e6, rel=0.003)


@pytest.mark.parametrize("bilinear", [True, False])
def test_the_stages_are_those_of_figure_1(bilinear: bool) -> None:
    """The paper's channels at 512x512, its sizes where convolutions are padded. The bilinear form has half of the
    channels wherever a map is on its way to being concatenated."""
    names = ["first", *(f"down.{i}" for i in range(4)), *(f"up.{i}" for i in range(4)), "classifier"]
    seen = sizes(UNet(19, bilinear=bilinear), names, 512, 512)
    sides = [512, 256, 128, 64, 32, 64, 128, 256, 512, 512]
    channels = [64, 128, 256, 512, 1024, 512, 256, 128, 64, 19]
    if bilinear:
        channels = [64, 128, 256, 512, 512, 256, 128, 64, 64, 19]
    assert list(seen.values()) == [(width, side, side) for width, side in zip(channels, sides)]


@pytest.mark.parametrize("bilinear", [True, False])
def test_odd_maps_are_pooled_upwards_and_keep_their_border(bilinear: bool) -> None:
    """A pixel in the last, odd, row reaches the logits there by the deepest path too."""
    torch.manual_seed(0)
    net = UNet(2, bilinear=bilinear).eval()
    seen = []
    net.down[-1].register_forward_hook(lambda module, inputs, output: seen.append(output))
    image = torch.zeros(1, 3, 65, 97)
    dotted = image.clone()
    dotted[..., 64, 96] = 1.0
    with torch.inference_mode():
        assert net(image).shape == (1, 2, 65, 97)
        net(dotted)
    assert seen[0].shape[-2:] == (5, 7)
    assert not torch.equal(seen[0][..., 4, 6], seen[1][..., 4, 6])

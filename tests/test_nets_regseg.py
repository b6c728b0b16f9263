"""RegSeg: its stages, published counts and field of view, and its dilated convolution against one of torch's a half."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.regseg import DBlock, Dilated, RegSeg
from tests.structure import sizes


def test_the_stages_are_those_of_the_paper():
    """Widths 32, 48, 128, 256 and at last 320; 1, 3 and 14 blocks; nothing below 1/16."""
    expected = {
        "stem": (32, 256, 512),
        "stage4": (48, 128, 256),
        "stage8": (128, 64, 128),
        "stage16.12": (256, 32, 64),
        "stage16": (320, 32, 64),
        "decoder.mix8": (64, 64, 128),
        "decoder": (64, 128, 256),
        "classifier": (19, 128, 256),
    }
    net = RegSeg(19)
    assert sizes(net, expected, 512, 1024) == expected
    assert (len(net.stage8), len(net.stage16)) == (3, 14)


def test_the_counts_are_the_published_ones():
    """3.34 M in the paper. Multiply-adds for the record: what the paper gives could not be read again."""
    net = RegSeg(19)
    assert parameters(net) == 3_334_951 == pytest.approx(3.34e6, rel=0.002)
    assert multiply_adds(net, 1024, 2048) == pytest.approx(38.35e9, rel=0.001)


def test_the_field_of_view_is_the_published_one():
    """3807 pixels, in the author's AblationStudies.md: each 3x3 convolution adds twice its larger dilation, in steps of
    the strides before it."""
    net = RegSeg(2)
    seen, step = 3, 2  # after the stem
    for block in (net.stage4, *net.stage8, *net.stage16):
        dilated = block.branch[1]
        seen += 2 * step * max(conv.dilation[0] for conv in dilated.convs)
        step *= block.stride
    assert (seen, step) == (3807, 16)


@pytest.mark.parametrize(("dilations", "convolutions"), [((1, 14), 2), ((1, 1), 1)])
def test_each_half_of_the_channels_has_its_dilation(dilations, convolutions):
    torch.manual_seed(0)
    layer = Dilated(64, dilations, stride=1).eval()
    features = torch.randn(1, 64, 20, 33)
    assert len(layer.convs) == convolutions
    with torch.inference_mode():
        kernels = torch.cat([conv.weight for conv in layer.convs])
        assert kernels.shape == (64, 16, 3, 3)
        halves = [
            functional.conv2d(half, weight, padding=dilation, dilation=dilation, groups=2)
            for half, weight, dilation in zip(features.split(32, 1), kernels.split(32), dilations)
        ]
        torch.testing.assert_close(layer(features), layer.norm(torch.cat(halves, dim=1)).relu())


def test_the_shortcut_of_an_odd_size_averages_inside_the_border():
    block = DBlock(16, 16, stride=2).eval()
    for weight in block.branch.parameters():
        nn.init.zeros_(weight)
    nn.init.dirac_(block.shortcut[0].weight)
    with torch.inference_mode():
        output = block(torch.full((1, 16, 5, 7), 3.0))
    assert output.shape == (1, 16, 3, 4)
    torch.testing.assert_close(output, torch.full_like(output, 3.0 / (1 + 1e-5) ** 0.5))

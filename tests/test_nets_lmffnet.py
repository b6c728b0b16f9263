"""LMFFNet: its stages, its counts by hand, what its attention sees, and its decoder's weighting."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.lmffnet import Attention, Bottleneck, Decoder, Down, LMFFNet, halved
from tests.structure import elements, sizes


def test_the_stages_are_those_of_the_table() -> None:
    expected = {
        **{f"stem.{i}": (32, 256, 512) for i in range(3)},
        "fuse2": (35, 256, 512),
        "down4": (64, 128, 256),
        **{f"stage4.{i}": (64, 128, 256) for i in range(3)},
        "attention4": (64, 128, 256),
        "fuse4": (131, 128, 256),
        "down8": (128, 64, 128),
        **{f"stage8.{i}": (128, 64, 128) for i in range(8)},
        "attention8": (128, 64, 128),
        "fuse8": (259, 64, 128),
        "decoder.fine": (16, 128, 256),
        "decoder.deep": (32, 64, 128),
        "decoder.attention": (19, 128, 256),
        "decoder.classifier": (19, 64, 128),
        "decoder": (19, 128, 256),
    }
    net = LMFFNet(19)
    assert sizes(net, expected, 512, 1024) == expected
    assert (len(net.stage4), len(net.stage8)) == (3, 8)
    dilations = [block.far[0].dilation for block in (*net.stage4, *net.stage8)]
    assert dilations == [(rate, rate) for rate in (2, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32)]
    assert all(block.near[0].dilation == (1, 1) for block in (*net.stage4, *net.stage8))


def weights(classes: int) -> dict[int, int]:
    """Of all convolutions but the attention's, by hand: the size's divisor -> weights that are used at each position
    there."""

    def bottleneck(channels: int) -> int:
        half = channels // 2
        return 9 * channels * half + 9 * half + 9 * half * half + half * channels

    return {
        2: 9 * 32 * (3 + 32 + 32) + 35 * 35,
        4: 9 * 35 * (64 - 35) + 3 * bottleneck(64) + 131 * 131 + 131 * 16 + (16 + 32) * (9 + classes),
        8: 9 * 131 * 128 + 8 * bottleneck(128) + 259 * 259 + 259 * 32 + 259 * (9 + classes),
    }


ATTENTION = {channels: 4 * channels + 2 * channels * channels // 8 for channels in (64, 128)}
"""Weights of each, used once."""

NORMED = {
    2: 3 * 32 + 35,
    4: 64 + 3 * (3 * 32 + 64) + 131 + 16 + 32,
    8: 128 + 8 * (3 * 64 + 128) + 259 + 259,
}
"""Channels with a norm and a PReLU, by hand."""


def test_the_counts_are_the_published_ones() -> None:
    """1.35 M in the authors' README; 16.7 G at 512x1024 in their issue 1, of the larger network of an earlier version
    of the paper, which has 1.4 M parameters as well.

    It does not say what is counted. With four operations for each number that a norm gives and one for each that a
    PReLU bends, ours has 16.68 G.
    """
    net = LMFFNet(19)
    slopes = 1 + 1  # one a PReLU in the two attentions
    ours = sum(weights(19).values()) + sum(ATTENTION.values()) + 3 * sum(NORMED.values()) + slopes
    assert parameters(net) == ours == 1_346_692 == pytest.approx(1.35e6, rel=0.003)

    products = sum(count * (512 // by) * (1024 // by) for by, count in weights(19).items()) + sum(ATTENTION.values())
    assert multiply_adds(net, 512, 1024) == products == pytest.approx(16.347e9, rel=1e-4)
    normed = sum(count * (512 // by) * (1024 // by) for by, count in NORMED.items())
    assert elements(net, nn.BatchNorm2d, 512, 1024) == normed
    assert products + 5 * normed == pytest.approx(16.7e9, rel=0.002)


def test_the_first_half_goes_near_and_the_second_far() -> None:
    torch.manual_seed(0)
    block = Bottleneck(16, dilation=5).eval()
    features = torch.randn(2, 16, 13, 18)
    with torch.inference_mode():
        reduced = block.reduce(features)
        near, far = (path[0].weight for path in (block.near, block.far))
        parts = [
            functional.conv2d(reduced[:, :4], near, padding=1, groups=4),
            functional.conv2d(reduced[:, 4:], far, padding=5, dilation=5, groups=4),
        ]
        parts = [path[2](path[1](part)) for path, part in zip((block.near, block.far), parts)]
        expected = block.last(features + block.merge(torch.cat(parts, dim=1)))
        torch.testing.assert_close(block(features), expected)


def quarters(features: Tensor) -> Tensor:
    """Means over the quarters of BCHW, by slices, an odd size's middle in both: BC22."""
    height, width = features.shape[-2:]
    rows = (slice(0, (height + 1) // 2), slice(height // 2, height))
    columns = (slice(0, (width + 1) // 2), slice(width // 2, width))
    return torch.stack([torch.stack([features[:, :, y, x].mean((2, 3)) for x in columns], -1) for y in rows], -2)


@pytest.mark.parametrize("size", [(8, 12), (19, 34), (9, 13)])
def test_the_attention_weighs_the_quarters(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    attention = Attention(16).eval()
    features = torch.randn(2, 16, *size)
    first, bend, second, _ = attention.share
    with torch.inference_mode():
        seen = (quarters(features) * attention.merge.weight[:, 0]).sum((2, 3)) + features.mean((2, 3))
        hidden = seen @ first.weight[:, :, 0, 0].T
        hidden = torch.where(hidden > 0, hidden, bend.weight * hidden)
        share = (hidden @ second.weight[:, :, 0, 0].T).sigmoid()
        assert ((share > 0) & (share < 1)).all()
        torch.testing.assert_close(attention(features), features * share[:, :, None, None])


def test_the_attention_tells_where_things_are() -> None:
    """Squeeze and excitation would give both halves the same share: their means are equal."""
    torch.manual_seed(0)
    attention = Attention(16).eval()
    features = torch.randn(1, 16, 8, 12)
    with torch.inference_mode():
        turned = attention(features.flip(3)).flip(3)
        assert not torch.allclose(turned, attention(features), rtol=1e-2)
        attention.merge.weight.fill_(0.25)
        torch.testing.assert_close(attention(features.flip(3)).flip(3), attention(features))


def test_an_odd_size_keeps_its_last_row_and_column() -> None:
    down = Down(1, 2).eval()
    features = torch.zeros(1, 1, 5, 7)
    features[..., 4, 6] = 3.0
    with torch.inference_mode():
        output = down(features)
    expected = torch.zeros(1, 3, 4)
    expected[0, 2, 3] = 3.0 / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(output[:, 1], expected)


def test_a_plain_image_stays_plain_up_to_the_border() -> None:
    image = torch.full((1, 3, 75, 133), 2.0)
    assert halved(image).shape == (1, 3, 38, 67)
    torch.testing.assert_close(halved(halved(image)), torch.full((1, 3, 19, 34), 2.0))


def test_the_decoder_weighs_what_the_coarse_scale_says() -> None:
    """By the sigmoid of both scales' attention: a half where it says nothing, never more than the whole."""
    torch.manual_seed(0)
    decoder = Decoder(6, 10, 4).eval()
    at4, at8 = torch.randn(1, 6, 19, 34), torch.randn(1, 10, 10, 17)
    with torch.inference_mode():
        said = functional.interpolate(decoder.classifier(at8), (19, 34), mode="bilinear", align_corners=False)
        weighed = decoder(at4, at8)
        assert (weighed.abs() <= said.abs()).all() and weighed.std() > 0
        both = torch.cat(
            [decoder.fine(at4), functional.interpolate(decoder.deep(at8), (19, 34), mode="bilinear")], dim=1
        )
        torch.testing.assert_close(weighed, said * decoder.attention(both).sigmoid())
        nn.init.zeros_(decoder.attention[1].weight)
        torch.testing.assert_close(decoder(at4, at8), said / 2)


@pytest.mark.parametrize("training", [False, True])
def test_an_odd_size_comes_back(training: bool) -> None:
    with torch.device("meta"):
        output = LMFFNet(4).train(training)(torch.empty(2, 3, 75, 133))
    assert output[0].shape == (2, 4, 19, 34) if training else output.shape == (2, 4, 75, 133)

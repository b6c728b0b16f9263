"""PP-LiteSeg: the stages of its figure 2, counts, and its pyramid and attention against plain formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg import nets
from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.ppliteseg import AttentionFusion, PPLiteSeg, SimplePyramid, ppliteseg_b
from roadseg.nets.published import OTHER_DECODER, PUBLISHED
from tests.structure import sizes

Build = Callable[[int], nn.Module]
BOTH = pytest.mark.parametrize(
    ("build", "widths"), [(PPLiteSeg, (32, 64, 128)), (ppliteseg_b, (64, 96, 128))], ids=["T", "B"]
)


@BOTH
def test_the_stages_are_those_of_figure_2(build: Build, widths: tuple[int, int, int]) -> None:
    """At 512x1024, the size of the authors' T1 and B1; the decoder's widths are their configurations' `arm_out_chs`."""
    at8, at16, at32 = widths
    expected = {
        "backbone.stages.0": (256, 64, 128),
        "backbone.stages.1": (512, 32, 64),
        "backbone.stages.2": (1024, 16, 32),
        "pyramid.levels.0": (128, 1, 1),
        "pyramid.levels.1": (128, 2, 2),
        "pyramid.levels.2": (128, 4, 4),
        "pyramid": (128, 16, 32),
        "fusions.2": (at32, 16, 32),
        "fusions.1": (at16, 32, 64),
        "fusions.0": (at8, 64, 128),
        "classifier": (19, 64, 128),
    }
    assert sizes(build(19), expected, 512, 1024) == expected


@pytest.mark.parametrize(
    ("build", "exact", "billions"), [(PPLiteSeg, 8_027_827, 11.42), (ppliteseg_b, 12_234_259, 19.23)]
)
def test_the_counts_are_those_of_the_authors_widths(build: Build, exact: int, billions: float) -> None:
    """The paper publishes none; the next test derives the parameters layer by layer."""
    net = build(19)
    assert parameters(net) == exact
    assert multiply_adds(net, 512, 1024) == pytest.approx(billions * 1e9, rel=0.001)


def _conv(inputs: int, outputs: int, kernel: int) -> int:
    """Parameters of a convolution with its norm."""
    return inputs * outputs * kernel**2 + 2 * outputs


@pytest.mark.parametrize(
    ("name", "widths", "hidden", "millions"),
    [("ppliteseg_t", (32, 64, 128), 32, 6.33), ("ppliteseg_b", (64, 96, 128), 64, 10.56)],
)
def test_another_codes_count_differs_by_its_decoder(
    name: str, widths: tuple[int, int, int], hidden: int, millions: float
) -> None:
    """zh320's counts, 6.33 and 10.56 M, are of another decoder on the same backbone: a pyramid 256 wide, two fusions
    whose projections are 1x1 instead of three whose are 3x3, with attention by one 1x1, 3x3 convolutions between them
    that widen towards the output, a single layer as the head. The authors' code has what we have."""
    net = nets.build(name, 19)
    backbone = parameters(net.backbone)
    at8, at16, at32 = widths
    attention = _conv(4, 2, 3) + _conv(2, 1, 3)
    fusions = [
        _conv(fine, deep, 3) + attention + _conv(deep, outputs, 3)
        for fine, deep, outputs in [(256, at16, at8), (512, at32, at16), (1024, at32, at32)]
    ]
    ours = 3 * _conv(1024, at32, 1) + _conv(at32, at32, 3), sum(fusions), _conv(at8, hidden, 3) + hidden * 19 + 19
    assert backbone + sum(ours) == parameters(net)

    first, second, third = widths
    between = _conv(first, first, 3) + _conv(first, second, 3) + _conv(second, third, 3)
    theirs = (
        3 * _conv(1024, 256, 1) + 256 * first * 9,
        512 * first + 4 + 256 * second + 4 + between,
        _conv(third, 19, 3),
    )
    assert backbone + sum(theirs) == pytest.approx(millions * 1e6, rel=0.002)

    said = [count for pair in zip(theirs, ours) for count in pair] + [sum(ours) - sum(theirs)]
    assert PUBLISHED[name].differs == OTHER_DECODER.format(*(count / 1e6 for count in said))


def test_the_pyramid_adds_what_pooling_first_gives() -> None:
    torch.manual_seed(0)
    pyramid = SimplePyramid(6, 4)
    pyramid(torch.randn(4, 6, 9, 13))  # so that the running statistics are not the identity
    pyramid.eval()
    for size in [(9, 13), (3, 2)]:  # the second has fewer positions than windows
        features = torch.randn(2, 6, *size)
        with torch.inference_mode():
            added = 0
            for bins, level in zip([1, 2, 4], pyramid.levels):
                pooled = level.project(functional.adaptive_avg_pool2d(features, bins)).relu()
                added = added + functional.interpolate(pooled, size=size, mode="bilinear")
            torch.testing.assert_close(pyramid(features), pyramid.smooth(added))


def test_spatial_attention_mixes_by_one_weight_a_position() -> None:
    torch.manual_seed(0)
    fusion = AttentionFusion(6, 4, 5).eval()
    fine, deep = torch.randn(1, 6, 9, 13), torch.randn(1, 4, 5, 7)
    with torch.inference_mode():
        projected = fusion.project(fine)
        enlarged = functional.interpolate(deep, size=(9, 13), mode="bilinear")
        seen = torch.stack(
            [projected.mean(1), projected.max(1).values, enlarged.mean(1), enlarged.max(1).values], dim=1
        )
        weight = fusion.attention(seen).sigmoid()
        assert weight.shape == (1, 1, 9, 13)
        mixed = enlarged + weight * (projected - enlarged)
        torch.testing.assert_close(fusion(fine, deep), fusion.smooth(mixed))


@pytest.mark.parametrize(("bias", "kept"), [(100.0, "fine"), (-100.0, "deep")])
def test_a_weight_of_one_leaves_the_fine_and_of_zero_the_deep_features(bias: float, kept: str) -> None:
    fusion = AttentionFusion(6, 4, 5).eval()
    norm = fusion.attention[1][1]
    assert isinstance(norm, nn.BatchNorm2d)
    nn.init.zeros_(norm.weight)
    nn.init.constant_(norm.bias, bias)
    fine, deep = torch.randn(1, 6, 8, 8), torch.randn(1, 4, 8, 8)
    with torch.inference_mode():
        expected = fusion.project(fine) if kept == "fine" else deep
        torch.testing.assert_close(fusion(fine, deep), fusion.smooth(expected))


@BOTH
def test_both_training_heads_are_at_an_eighth(build: Build, widths: tuple[int, int, int]) -> None:
    main, *heads = build(5)(torch.randn(1, 3, 65, 97))
    assert [tuple(one.shape) for one in (main, *heads)] == [(1, 5, 9, 13)] * 3

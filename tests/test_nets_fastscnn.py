"""Fast-SCNN: the stages of its table 1, its separable convolution, and the counts of PaddleSeg's layer by layer."""

import pytest
import torch
from torch import nn

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.fastscnn import Bottleneck, FastSCNN, Separable
from tests.structure import elements, sizes


def test_the_stages_are_those_of_table_1() -> None:
    """At the paper's 1024x2048, a row each."""
    expected = {
        "downsample.0": (32, 512, 1024),  # Conv2D
        "downsample.1": (48, 256, 512),  # DSConv
        "downsample.2": (64, 128, 256),
        **{f"context.0.{i}": (64, 64, 128) for i in range(3)},  # bottleneck, n = 3, s = 2
        **{f"context.1.{i}": (96, 32, 64) for i in range(3)},
        **{f"context.2.{i}": (128, 32, 64) for i in range(3)},  # s = 1
        "context.3": (128, 32, 64),  # PPM
        "fusion": (128, 128, 256),  # FFM
        "classifier.0": (128, 128, 256),  # DSConv, n = 2
        "classifier.1": (128, 128, 256),
        "classifier": (19, 128, 256),  # Conv2D
    }
    assert sizes(FastSCNN(19), expected, 1024, 2048) == expected


def test_the_bottlenecks_expand_by_six_and_add_their_input_where_shapes_agree() -> None:
    """Tables 1 and 2: t = 6; only the first of a row, and not even that of the last, changes the size."""
    net = FastSCNN(19)
    blocks = [block for block in net.modules() if isinstance(block, Bottleneck)]
    assert [block.residual for block in blocks] == [False, True, True] * 3
    assert [block.branch[1][0].stride[0] for block in blocks] == [2, 1, 1, 2, 1, 1, 1, 1, 1]
    assert all(block.branch[0][0].out_channels == 6 * block.branch[0][0].in_channels for block in blocks)
    assert net.fusion.deep[0][0].dilation == (4, 4)  # table 3


def test_nothing_bends_between_depthwise_and_pointwise() -> None:
    """Section 3.2.1: the nonlinearity between them is left out, so up to the last ReLU a DSConv is linear (norms fresh,
    without means and biases)."""
    torch.manual_seed(0)
    depthwise, (conv, norm, last) = Separable(4, 6, 2).eval()
    features = torch.randn(1, 4, 9, 12)
    with torch.inference_mode():
        torch.testing.assert_close(norm(conv(depthwise(-features))), -norm(conv(depthwise(features))))
    assert isinstance(last, nn.ReLU)


def test_paddlesegs_counts_follow_layer_by_layer() -> None:
    """1.44 M and 2.04 G at 512x1024, by paddle.flops, which counts multiply-adds, one for each number with a bias and
    two for each number of a norm; the norms' running statistics are parameters there.

    Theirs has a 3x3 convolution where the pyramid is fused, ours, and the paper's count of 1.11 M, a 1x1 one; it counts
    its one training head, at 1/8; convolutions have biases besides the norms but for the bottlenecks' and the fusion's
    depthwise one.
    """
    net = FastSCNN(19)
    eighth, deepest = 64 * 128, 16 * 32
    pyramid, head = 256 * 128 * 8, 64 * 32 * 9 + 32 * 19
    biased = {
        32: [256 * 512, 128 * 256, eighth],  # the first convolution, a depthwise one, the head's first
        48: [128 * 256, eighth],
        64: [eighth],
        128: [deepest, *6 * [eighth]],  # the pyramid's fusion; both paths of the fusion and the classifier
        19: [eighth],  # the head's last
    }
    stages = 4 * 32  # channels of the pyramid's projections, at (1 + 4 + 9 + 36) positions of 32 each
    norms = sum(norm.num_features for part in net.children() if part is not net.heads for norm in _norms(part))
    statistics = 2 * (norms + 32)
    biases = sum(channels * len(where) for channels, where in biased.items()) + stages
    theirs = parameters(net) + pyramid + head + 2 * 32 + biases + statistics
    assert theirs == 1_444_086 == pytest.approx(1.44e6, rel=0.005)

    products = multiply_adds(net, 512, 1024) + pyramid * deepest + head * eighth
    normed = elements(net, nn.BatchNorm2d, 512, 1024) + 32 * eighth
    added = sum(channels * sum(where) for channels, where in biased.items()) + 50 * 32 + 19 * eighth
    pooled = sum((16 // bins * (32 // bins) + 1) * bins**2 * 128 for bins in (1, 2, 3, 6))
    assert products == pytest.approx(1.968e9, rel=1e-3)
    assert products + 2 * normed + added + pooled == pytest.approx(2.038e9, rel=2e-4)


def _norms(part: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in part.modules() if isinstance(module, nn.BatchNorm2d)]

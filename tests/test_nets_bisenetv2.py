"""BiSeNetV2: the stages of its table 1, published counts, and its attention against the paper's order of layers."""

import pytest
import torch
from torch.nn import functional

from roadseg.nets.bisenetv2 import BiSeNetV2, GatherExpansion, GuidedAggregation
from roadseg.nets.blocks import ConvNorm
from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.pooling import Pooled
from tests.structure import sizes


def test_the_stages_are_those_of_table_1() -> None:
    """Rows S1 to S5 of both branches at 512x1024, the size the paper trains at. The stem's two rows are one module."""
    expected = {
        "detail.0": (64, 256, 512),
        "detail.1": (64, 128, 256),
        "detail.2": (128, 64, 128),
        "semantic.0.conv": (16, 256, 512),
        "semantic.0": (16, 128, 256),
        "semantic.1": (32, 64, 128),
        "semantic.2": (64, 32, 64),
        "semantic.3": (128, 16, 32),
        "context": (128, 16, 32),
        "aggregation": (128, 64, 128),
        "classifier": (19, 64, 128),
    }
    net = BiSeNetV2(19)
    assert sizes(net, expected, 512, 1024) == expected
    repeats = [sum(isinstance(module, GatherExpansion) for module in stage.modules()) for stage in net.semantic]
    assert repeats == [0, 2, 2, 4]


def test_it_has_the_published_counts() -> None:
    """PaddleSeg's zoo, whose head is 128 wide: 2.33 M, 16.14 G multiply-adds at 512x1024."""
    net = BiSeNetV2(19)
    assert parameters(net) == 2_307_619 == pytest.approx(2.33e6, rel=0.03)
    assert multiply_adds(net, 512, 1024) == pytest.approx(16.14e9, rel=0.01)


def test_with_a_head_of_1024_it_has_the_counts_of_rdrnets_readme() -> None:
    """3.4 M, 98.4 G multiply-adds at 1024x2048: these are without the training heads too."""
    net = BiSeNetV2(19, hidden=1024)
    assert parameters(net) == 3_358_627 == pytest.approx(3.4e6, rel=0.03)
    assert multiply_adds(net, 1024, 2048) == pytest.approx(98.4e9, rel=0.001)


@pytest.mark.parametrize("bins", [1, 2, 4])
def test_pooling_first_or_last_is_one_function(bins: int) -> None:
    torch.manual_seed(0)
    pooled = Pooled(ConvNorm(6, 5), bins)
    pooled(torch.randn(8, 6, 9, 12) + 1)  # so that the running statistics are not the identity
    pooled.eval()
    features = torch.randn(2, 6, 9, 12)
    with torch.inference_mode():
        last = functional.adaptive_avg_pool2d(pooled.project(features), bins)
        torch.testing.assert_close(pooled(features), last)


def test_each_branch_is_gated_by_the_other() -> None:
    """The sum that figure 6 shows; and with both gates shut nothing comes through."""
    torch.manual_seed(0)
    aggregation = GuidedAggregation(8).eval()
    detail, semantic = torch.randn(1, 8, 16, 24), torch.randn(1, 8, 4, 6)
    with torch.inference_mode():
        up = functional.interpolate(aggregation.semantic_up(semantic), size=(16, 24), mode="bilinear")
        at8 = aggregation.detail_kept(detail) * up.sigmoid()
        at32 = aggregation.detail_down(detail) * aggregation.semantic_kept(semantic).sigmoid()
        whole = at8 + functional.interpolate(at32, size=(16, 24), mode="bilinear")
        torch.testing.assert_close(aggregation(detail, semantic), aggregation.fuse(whole))
        aggregation.semantic_up[1].bias.fill_(-100)
        for part in (aggregation.semantic_kept[1].weight, aggregation.semantic_kept[1].bias):
            part.fill_(0)
        aggregation.semantic_kept[1].bias.fill_(-100)
        shut = aggregation(detail, semantic)
    torch.testing.assert_close(shut, aggregation.fuse(torch.zeros_like(detail)))


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_the_four_training_heads_are_at_an_eighth(size: tuple[int, int]) -> None:
    main, *heads = BiSeNetV2(5)(torch.randn(1, 3, *size))
    assert [tuple(one.shape) for one in (main, *heads)] == [(1, 5, -(-size[0] // 8), -(-size[1] // 8))] * 5

"""STDC-Seg: the backbone of its table 2, published counts, its module and BiSeNet's decoder against plain formulas."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg.nets.bilateral import AttentionRefinement, ContextNeck, FeatureFusion
from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.stdc import STDC1, STDC2, ShortTermDense, STDCSeg
from tests.structure import elements, sizes

BOTH = pytest.mark.parametrize("modules", [STDC1, STDC2], ids=["stdc1", "stdc2"])


@BOTH
def test_the_stages_are_those_of_table_2(modules: tuple[int, int, int]) -> None:
    """At ImageNet's 224x224: ConvX1, ConvX2, then stages 3 to 5; the decoder of figure 4 on the same image."""
    expected = {
        "backbone.stem.0": (32, 112, 112),
        "backbone.stem": (64, 56, 56),
        "backbone.stages.0": (256, 28, 28),
        "backbone.stages.1": (512, 14, 14),
        "backbone.stages.2": (1024, 7, 7),
        "neck.average": (128, 1, 1),
        "neck.refine32": (128, 7, 7),
        "neck.smooth32": (128, 14, 14),
        "neck.refine16": (128, 14, 14),
        "neck.smooth16": (128, 28, 28),
        "fusion": (256, 28, 28),
        "classifier": (19, 28, 28),
    }
    net = STDCSeg(19, modules=modules)
    assert sizes(net, expected, 224, 224) == expected
    assert tuple(len(stage) for stage in net.backbone.stages) == modules


@BOTH
def test_the_backbone_computes_what_its_name_says(modules: tuple[int, int, int]) -> None:
    """The authors' STDCNet813 and STDCNet1446 classify 224x224 by 813 and 1446 M multiply-adds: the backbone, then a
    1x1 convolution 1024 to 1024 at 7x7 and two dense layers, 1024 to 1024 to 1000."""
    after = 1024 * 1024 * 49 + 1024 * 1024 + 1024 * 1000
    named = {STDC1: 813e6, STDC2: 1446e6}[modules]
    assert multiply_adds(STDCSeg(19, modules=modules).backbone, 224, 224) + after == pytest.approx(named, rel=0.01)


@pytest.mark.parametrize(
    ("modules", "exact", "millions", "billions"), [(STDC1, 8_275_123, 8.29, 24.83), (STDC2, 12_305_587, 12.33, 38.05)]
)
def test_the_counts_are_the_published_ones(
    modules: tuple[int, int, int], exact: int, millions: float, billions: float
) -> None:
    """PaddleSeg's zoo, at 512x1024. Its code registers the backbone's layers under two names, `features` and `x2` to
    `x32`. paddle.flops hooks layers by `Layer.apply`, which visits both, and its hooks add up: the backbone counts
    twice there (7.9 and 14.5 G). Norms count two operations for each number; a few biases are left."""
    net = STDCSeg(19, modules=modules)
    assert parameters(net) == exact == pytest.approx(millions * 1e6, rel=0.03)
    once, backbone = multiply_adds(net, 512, 1024), multiply_adds(net.backbone, 512, 1024)
    normed = sum(elements(part, nn.BatchNorm2d, 512, 1024) for part in (net, net.backbone))
    assert once + backbone + 2 * normed == pytest.approx(billions * 1e9, rel=0.0005)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_module_keeps_all_four_outputs(stride: int) -> None:
    torch.manual_seed(0)
    module = ShortTermDense(16, 32, stride).eval()
    features = torch.randn(2, 16, 9, 12)
    with torch.inference_mode():
        kept = module(features)
        first = module.first(features)
        second = module.rest[0](module.down(first))
        third = module.rest[1](second)
        fourth = module.rest[2](third)
    assert kept.shape == (2, 32, -(-9 // stride), -(-12 // stride))
    assert [part.shape[1] for part in (first, second, third, fourth)] == [16, 8, 4, 4]
    torch.testing.assert_close(kept[:, 16:], torch.cat([second, third, fourth], dim=1))
    if stride == 1:
        torch.testing.assert_close(kept[:, :16], first)
    else:
        torch.testing.assert_close(kept[:, :16, 1, 1], first[:, :, 1:4, 1:4].mean(dim=(2, 3)))


def test_attention_refinement_weighs_channels_by_their_average() -> None:
    torch.manual_seed(0)
    refinement = AttentionRefinement(6, 4)
    features = torch.randn(3, 6, 9, 12)
    refinement(features)  # so that the running statistics are not the identity
    refinement.eval()
    conv, norm = refinement.gate.project
    with torch.inference_mode():
        refined = refinement.conv(features)
        average = refined.mean(dim=(2, 3)) @ conv.weight[:, :, 0, 0].T
        normed = (average - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
        torch.testing.assert_close(refinement(features), refined * normed.sigmoid()[:, :, None, None])


def test_feature_fusion_adds_the_weighed_channels_once_more() -> None:
    torch.manual_seed(0)
    fusion = FeatureFusion(10, 8, 2).eval()
    fine, context = torch.randn(2, 4, 5, 7), torch.randn(2, 6, 5, 7)
    with torch.inference_mode():
        mixed = fusion.mix(torch.cat([fine, context], dim=1))
        hidden = functional.relu(mixed.mean(dim=(2, 3)) @ fusion.squeeze.weight[:, :, 0, 0].T)
        weights = (hidden @ fusion.excite.weight[:, :, 0, 0].T).sigmoid()
        torch.testing.assert_close(fusion(fine, context), mixed * (1 + weights[:, :, None, None]))


def test_the_neck_goes_to_the_sizes_it_is_given() -> None:
    neck = ContextNeck(8, 16).eval()
    context8, context16 = neck(torch.randn(1, 8, 5, 7), torch.randn(1, 16, 3, 4), (9, 13))
    assert context8.shape == (1, 128, 9, 13)
    assert context16.shape == (1, 128, 5, 7)


def test_the_last_training_head_sees_edges() -> None:
    """One channel, at 1/8, on the backbone's own features: the training loop knows by the single channel."""
    main, *heads = STDCSeg(5)(torch.randn(1, 3, 65, 97))
    assert [tuple(one.shape) for one in (main, *heads)] == [(1, 5, 9, 13)] * 3 + [(1, 1, 9, 13)]

"""DeepLabV3, DeepLabV3+ and PSPNet: stages, published counts, and pooling before and after the projection."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg.nets.backbones import resnet
from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.deeplab import ASPP, DeepLabV3, DeepLabV3Plus
from roadseg.nets.pooling import pooled
from roadseg.nets.pspnet import PSPNet
from tests.structure import elements, sizes


def shaped(make, *args, **kwargs) -> nn.Module:
    """The network without its weights: enough to count."""
    with torch.device("meta"):
        return make(19, *args, **kwargs)


# PaddleSeg's model zoo, output stride 8; its ResNet has three 3x3 convolutions at the start, 19 thousand parameters and
# 2.5e9 multiply-adds more, and its convolutions have biases besides the norms.
@pytest.mark.parametrize(
    ("make", "depth", "published", "adds"),
    [(DeepLabV3, 101, 58.17e6, 481.00e9), (DeepLabV3Plus, 50, 26.79e6, 228.44e9)],
)
def test_deeplab_counts_are_the_published_ones(make, depth: int, published: float, adds: float) -> None:
    net = shaped(make, depth)
    assert parameters(net) == pytest.approx(published, rel=0.005)
    assert multiply_adds(net, 512, 1024) == pytest.approx(adds, rel=0.02)


def test_deeplab_on_resnet_18() -> None:
    """segmentation-models-pytorch: V3 15.90 M, with a 3x3 convolution of 256 channels and its norm (590,336) after
    ASPP that the paper does not have; V3+ 12.33 M, where one of the decoder's two separable ones stands there."""
    assert parameters(shaped(DeepLabV3, 18)) + 590_336 == pytest.approx(15.90e6, rel=0.001)
    assert parameters(shaped(DeepLabV3Plus, 18, output_stride=16)) == pytest.approx(12.33e6, rel=0.001)


def test_pspnet_counts_are_the_published_ones() -> None:
    """PaddleSeg: 86.97 M, 686.89e9 multiply-adds; with 1024 channels after the pyramid where the authors have 512
    (4096 * 512 * 9 and a norm more), and with the training head. paddle.flops counts running statistics as parameters
    and two operations for each number that a norm gives; three 3x3 convolutions at the start make the rest."""
    net = shaped(PSPNet, 101, hidden=1024)
    head = sum(parameter.numel() for parameter in net.heads.parameters())
    statistics = 2 * sum(module.num_features for module in net.modules() if isinstance(module, nn.BatchNorm2d))
    start = 3 * 32 * 9 + 32 * 32 * 9 + 32 * 64 * 9 - 3 * 64 * 49
    assert parameters(net) + head + statistics + start == pytest.approx(86.97e6, rel=0.0002)
    adds = multiply_adds(net, 512, 1024) + head * 64 * 128 + start * 256 * 512
    assert adds + 2 * elements(net, nn.BatchNorm2d, 512, 1024) == pytest.approx(686.89e9, rel=0.0005)
    authors = parameters(shaped(PSPNet, 101))
    assert parameters(net) - authors == 4096 * 512 * 9 + 2 * 512 + 19 * 512


def test_pspnet_on_resnet_18() -> None:
    """segmentation-models-pytorch: 11.41 M, which pools the second stage's 128 channels instead of the fourth's 512
    (the last two stages are counted and not used): 1x1 projections, a 1x1 convolution, a 3x3 classifier."""
    theirs = 4 * 128 * 32 + 3 * 2 * 32 + 256 * 512 + 2 * 512 + 512 * 19 * 9 + 19
    assert parameters(resnet(18)) + theirs == pytest.approx(11.41e6, rel=0.001)
    ours = 4 * (512 * 128 + 2 * 128) + 1024 * 128 * 9 + 2 * 128 + 128 * 19 + 19
    assert parameters(shaped(PSPNet, 18)) == parameters(resnet(18)) + ours


STAGES = [f"backbone.model.encoder.stages.{stage}" for stage in range(4)]


# V3, figure 3b: at output stride 8 blocks 3 and 4 keep the size; at 16 block 4 does. 513x513 is the paper's crop.
@pytest.mark.parametrize(("output_stride", "expected"), [(8, [129, 65, 65, 65]), (16, [129, 65, 33, 33])])
def test_deeplabs_stages_are_the_papers(output_stride: int, expected: list[int]) -> None:
    seen = sizes(shaped(DeepLabV3, 101, output_stride), [*STAGES, "pyramid", "classifier"], 513, 513)
    channels = [256, 512, 1024, 2048]
    assert [seen[name] for name in STAGES] == [(width, side, side) for width, side in zip(channels, expected)]
    assert seen["pyramid"] == (256, expected[-1], expected[-1])
    assert seen["classifier"] == (19, expected[-1], expected[-1])


# V3+, figure 2: low-level features to 48 channels at 1/4, the rest brought there by four (output stride 16).
def test_deeplab_v3_pluss_stages_are_the_papers() -> None:
    names = ["pyramid", "shallow", "decoder", "classifier"]
    seen = sizes(shaped(DeepLabV3Plus, 101, 16), names, 513, 513)
    assert list(seen.values()) == [(256, 33, 33), (48, 129, 129), (256, 129, 129), (19, 129, 129)]


# PSPNet, figure 3 and section 5.2: 473x473, features at 1/8.
def test_pspnets_stages_are_the_papers() -> None:
    names = [*STAGES, *(f"pyramid.projections.{i}" for i in range(4)), "pyramid", "classifier"]
    seen = sizes(shaped(PSPNet, 50), names, 473, 473)
    assert [seen[name][1] for name in STAGES] == [119, 60, 60, 60]
    assert [seen[name] for name in names[4:8]] == [(512, bins, bins) for bins in (1, 2, 3, 6)]
    assert seen["pyramid"] == (512, 60, 60)


@pytest.mark.parametrize(("output_stride", "rates"), [(8, [12, 24, 36]), (16, [6, 12, 18])])
@pytest.mark.parametrize("make", [DeepLabV3, DeepLabV3Plus])
def test_the_dilations_are_the_papers(make, output_stride: int, rates: list[int]) -> None:
    net = shaped(make, 50, output_stride)
    assert [
        scale[0].dilation[0] if make is DeepLabV3 else scale[0][0].dilation[0] for scale in net.pyramid.scales[1:]
    ] == rates


def normed(module: nn.Module) -> nn.Module:
    """With running statistics that are not the identity, in evaluation mode."""
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.5, 0.5)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return module.eval()


def test_pooling_first_computes_the_same() -> None:
    """What training does, projection and norm before pooling, and inference, pooling first, are one function."""
    torch.manual_seed(0)
    features = torch.randn(2, 8, 9, 13)
    project = normed(ASPP(8, (1, 2, 3), separable=False)).whole
    for bins in (1, 2, 3, 6):
        after = functional.adaptive_avg_pool2d(project(features), bins)
        torch.testing.assert_close(pooled(features, project, bins), after)


@pytest.mark.parametrize("make", [DeepLabV3, DeepLabV3Plus, PSPNet])
def test_one_scene_trains_and_the_head_is_at_an_eighth(make) -> None:
    outputs = make(5, 18)(torch.randn(1, 3, 65, 97))
    main = (17, 25) if make is DeepLabV3Plus else (9, 13)
    assert [tuple(output.shape) for output in outputs] == [(1, 5, *main), (1, 5, 9, 13)]
    assert all(output.isfinite().all() for output in outputs)
    if make is DeepLabV3Plus:
        assert make(5, 18, 16)(torch.randn(1, 3, 65, 97))[1].shape == (1, 5, 9, 13)

"""The YOLO-style network: its levels, its sizes, and its pooling against the windows that it stands for."""

import pytest
import torch
from torch.nn import functional

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.yolo import YOLO, Partial, PyramidPooling, yolo_s
from tests.structure import sizes


# YOLO26-sem publishes 1.6 M and 22.7 G for n, 6.5 M and 88.8 G for s (operations, so twice the multiply-adds), at
# 1024x2048. Another network: ours is of that size, so that the two may be compared.
@pytest.mark.parametrize(
    ("size", "count", "published", "operations"),
    [(YOLO, 1_642_531, 1.6e6, 22.7e9), (yolo_s, 6_551_603, 6.5e6, 88.8e9)],
)
def test_n_and_s_are_of_the_published_sizes(size, count, published, operations):
    net = size(19)
    assert parameters(net) == count == pytest.approx(published, rel=0.03)
    assert 2 * multiply_adds(net, 1024, 2048) == pytest.approx(operations, rel=0.05)


def test_the_stages_halve_and_the_neck_keeps_three_levels():
    expected = {
        "stage4": (32, 47, 156),
        "stage8": (64, 24, 78),
        "stage16": (128, 12, 39),
        "stage32": (256, 6, 20),
        "neck.fine16": (64, 12, 39),
        "neck.fine8": (64, 24, 78),
        "neck.coarse16": (64, 12, 39),
        "neck.coarse32": (64, 6, 20),
        "fuse": (64, 24, 78),
        "classifier": (19, 24, 78),
    }
    net = YOLO(19)
    assert sizes(net, expected, 188, 621) == expected


def test_depth_multiplies_the_residual_blocks():
    def blocks(net):
        stages = (net.stage4, net.stage8, net.stage16, net.stage32)
        return [len(part.through) - 1 for stage in stages for part in stage if isinstance(part, Partial)]

    assert blocks(YOLO(2)) == [1, 1, 2, 1]
    assert blocks(YOLO(2, depth=1.0)) == [2, 2, 4, 2]


def test_chained_maxima_are_those_over_windows_of_5_9_and_13():
    torch.manual_seed(0)
    pooling = PyramidPooling(6).eval()
    features = torch.randn(2, 6, 7, 19)
    with torch.inference_mode():
        first = pooling.project(features)
        windows = [functional.max_pool2d(first, size, stride=1, padding=size // 2) for size in (5, 9, 13)]
        torch.testing.assert_close(pooling(features), pooling.mix(torch.cat([first, *windows], dim=1)))


def test_half_of_a_partial_stage_passes_by_its_blocks():
    """With the blocks silenced, what passes still reaches the output; only the other half changes."""
    torch.manual_seed(0)
    stage = Partial(6, 8, 2).eval()
    features, seen = torch.randn(1, 6, 5, 7), []
    stage.mix.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    with torch.inference_mode():
        stage(features)
        for weight in stage.through.parameters():
            weight.zero_()
        stage(features)
    assert seen[0].shape == (1, 8, 5, 7)
    assert torch.equal(seen[0][:, 4:], seen[1][:, 4:])
    assert seen[0][:, :4].abs().sum() > 0 == seen[1][:, :4].abs().sum()

"""PIDNet-S: its stages, published counts, and its three modules against computations by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.ddrnet import averaged
from roadseg.nets.pidnet import Fusion, Guided, PIDNetS, Pyramid
from tests.structure import sizes


def test_the_stages_are_those_of_figure_3():
    """Three branches from 1/8 on; widths are PIDNet-S's, m = 2 and n = 3 blocks a stage, 32 channels to begin with."""
    expected = {
        "stem": (64, 128, 256),
        "i16": (128, 64, 128),
        "p3": (64, 128, 256),
        "d3": (32, 128, 256),
        "guide3": (64, 128, 256),
        "to_d3": (32, 64, 128),
        "i32": (256, 32, 64),
        "p4": (64, 128, 256),
        "d4": (64, 128, 256),
        "guide4": (64, 128, 256),
        "to_d4": (64, 32, 64),
        "i64": (512, 16, 32),
        "pyramid": (128, 16, 32),
        "p5": (128, 128, 256),
        "d5": (128, 128, 256),
        "fusion": (128, 128, 256),
        "classifier": (19, 128, 256),
    }
    net = PIDNetS(19)
    assert sizes(net, expected, 1024, 2048) == expected
    blocks = {name: sum(not isinstance(part, nn.ReLU) for part in net.get_submodule(name)) for name in ("i16", "i32")}
    assert blocks == {"i16": 3, "i32": 3}


def test_the_counts_are_the_published_ones():
    """7.6 M in the paper; RDRNet's README counts 7.7 M, which is with the training heads. 47.3 GFLOPs (multiply-adds)
    at 1024x2048, where the authors' code gives its stem's convolutions biases."""
    net = PIDNetS(19)
    assert parameters(net) == 7_625_651 == pytest.approx(7.6e6, rel=0.005)
    assert parameters(net) + parameters(net.heads) == pytest.approx(7.7e6, rel=0.005)
    assert multiply_adds(net, 1024, 2048) == pytest.approx(47.3e9, rel=0.005)


def test_the_training_heads_are_classes_then_one_channel_of_boundaries():
    outputs = PIDNetS(5)(torch.randn(1, 3, 65, 129))
    assert [tuple(output.shape) for output in outputs] == [(1, 5, 9, 17), (1, 5, 9, 17), (1, 1, 9, 17)]


def test_pagfm_mixes_by_the_likeness_of_each_position():
    torch.manual_seed(0)
    guided = Guided(4, 3).eval()
    detail, context = torch.randn(1, 4, 6, 10), torch.randn(1, 4, 3, 5)
    with torch.inference_mode():
        mixed = guided(detail, context)
        large = functional.interpolate(context, size=(6, 10), mode="bilinear")
        keys, queries = guided.detail(detail), functional.interpolate(guided.context(context), (6, 10), mode="bilinear")
        for row in range(6):
            for column in range(10):
                share = torch.sigmoid(keys[0, :, row, column] @ queries[0, :, row, column])
                expected = share * large[0, :, row, column] + (1 - share) * detail[0, :, row, column]
                torch.testing.assert_close(mixed[0, :, row, column], expected)


def test_light_bag_hears_the_detail_on_boundaries_and_the_context_elsewhere():
    torch.manual_seed(0)
    fusion = Fusion(4).eval()
    detail, context = torch.randn(1, 4, 3, 5), torch.randn(1, 4, 3, 5)
    with torch.inference_mode():
        on, off = torch.full_like(detail, 50.0), torch.full_like(detail, -50.0)
        torch.testing.assert_close(
            fusion(detail, context, on), fusion.detail(detail) + fusion.context(context + detail)
        )
        torch.testing.assert_close(
            fusion(detail, context, off), fusion.detail(detail + context) + fusion.context(context)
        )


def test_pappm_mixes_each_level_by_itself():
    """One grouped convolution computes what a convolution a level would."""
    torch.manual_seed(0)
    pyramid = Pyramid(8, 2, 4).eval()
    features = torch.randn(1, 8, 5, 9)
    norm, _, mix = pyramid.mix
    with torch.inference_mode():
        fine = pyramid.fine(features)
        parts = [fine]
        for level in range(4):
            coarse = pyramid.projections[level](averaged(pyramid.norms[level](features), level))
            summed = fine + functional.interpolate(coarse, size=(5, 9), mode="bilinear")
            own = slice(2 * level, 2 * level + 2)
            normed = (summed - norm.running_mean[own, None, None]) / (
                norm.running_var[own, None, None] + norm.eps
            ).sqrt()
            parts.append(functional.conv2d(normed.relu(), mix.weight[own], padding=1))
        expected = pyramid.fuse(torch.cat(parts, dim=1)) + pyramid.shortcut(features)
        torch.testing.assert_close(pyramid(features), expected)

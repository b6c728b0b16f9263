"""BiSeNetV1: the paths' sizes and published counts. Its attention modules are tested in test_nets_stdc.py."""

import pytest
import torch

from roadseg.nets.bisenetv1 import BiSeNetV1
from roadseg.nets.counts import multiply_adds, parameters
from tests.structure import sizes


def test_the_paths_have_the_papers_strides() -> None:
    """Section 3.1: three convolutions of stride 2 in the spatial path; section 3.2: the context path from 1/32 up to
    1/8. At 768x1536, the size of the paper's speeds."""
    expected = {
        "spatial.0": (64, 384, 768),
        "spatial.1": (64, 192, 384),
        "spatial.2": (64, 96, 192),
        "spatial.3": (128, 96, 192),
        "backbone.model.encoder.stages.1": (128, 96, 192),
        "backbone.model.encoder.stages.2": (256, 48, 96),
        "backbone.model.encoder.stages.3": (512, 24, 48),
        "neck.average": (128, 1, 1),
        "neck.refine32": (128, 24, 48),
        "neck.smooth32": (128, 48, 96),
        "neck.refine16": (128, 48, 96),
        "neck.smooth16": (128, 96, 192),
        "fusion": (256, 96, 192),
        "classifier": (19, 96, 192),
    }
    assert sizes(BiSeNetV1(19), expected, 768, 1536) == expected


def test_it_has_the_counts_of_rdrnets_readme() -> None:
    """13.3 M and 118.0 G multiply-adds at 1024x2048, zh320's code 13.32 M: all of the ResNet-18 form."""
    net = BiSeNetV1(19)
    assert parameters(net) == 13_340_563 == pytest.approx(13.3e6, rel=0.03)
    assert multiply_adds(net, 1024, 2048) == pytest.approx(118.0e9, rel=0.01)


def test_the_authors_narrower_head_saves_an_eighth() -> None:
    net = BiSeNetV1(19, hidden=64)
    assert parameters(net) == 12_894_163
    assert multiply_adds(net, 1024, 2048) == pytest.approx(118.34e9 * 7 / 8, rel=0.01)


@pytest.mark.parametrize("size", [(64, 64), (65, 97)])
def test_both_training_heads_are_at_an_eighth(size: tuple[int, int]) -> None:
    main, *heads = BiSeNetV1(5)(torch.randn(1, 3, *size))
    assert [tuple(one.shape) for one in (main, *heads)] == [(1, 5, -(-size[0] // 8), -(-size[1] // 8))] * 3

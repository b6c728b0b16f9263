"""DDRNet: the stages of its table 1, published counts, and slim weights that stay what they were."""

import hashlib

import pytest
import torch

from roadseg.nets.counts import multiply_adds, parameters
from roadseg.nets.ddrnet import DDRNet23, DDRNet23Slim
from tests.structure import sizes


# Table 1 has DDRNet-39 and DDRNet-23-slim at 224x224 (for ImageNet); 23 is 23-slim at twice the width.
@pytest.mark.parametrize(("net", "width"), [(DDRNet23, 64), (DDRNet23Slim, 32)])
def test_the_stages_are_those_of_table_1(net, width):
    expected = {
        "stem.0": (width, 112, 112),  # conv1
        "stem.2": (width, 56, 56),  # conv2
        "stem.4": (2 * width, 28, 28),
        "low16": (4 * width, 14, 14),  # conv3
        "high3": (2 * width, 28, 28),
        "low32": (8 * width, 7, 7),  # conv4
        "high4": (2 * width, 28, 28),
        "low64": (16 * width, 4, 4),  # conv5_1
        "high5": (4 * width, 28, 28),
        "to_low3": (4 * width, 14, 14),
        "to_low4": (8 * width, 7, 7),
        "to_high3": (2 * width, 14, 14),
        "to_high4": (2 * width, 7, 7),
        "pyramid": (4 * width, 4, 4),
        "classifier": (19, 28, 28),
    }
    assert sizes(net(19), expected, 224, 224) == expected


def test_23_has_the_published_counts():
    """20.1 M without the training head; RDRNet's README counts 20.3 M, which is with it. 143.0 GFLOPs (multiply-adds)
    at 1024x2048."""
    net = DDRNet23(19)
    assert parameters(net) == 20_148_819 == pytest.approx(20.1e6, rel=0.03)
    assert parameters(net) + parameters(net.heads) == pytest.approx(20.3e6, rel=0.001)
    assert multiply_adds(net, 1024, 2048) == pytest.approx(143.0e9, rel=0.001)


def test_slim_keeps_the_names_and_weights_that_checkpoints_rely_on():
    """Recorded before 23 was added: names and shapes, and what seed 7 drew for the first and last weights and left."""
    torch.manual_seed(7)
    state = DDRNet23Slim(19).state_dict()
    listed = "\n".join(f"{name} {tuple(value.shape)}" for name, value in state.items())
    assert (
        hashlib.sha256(listed.encode()).hexdigest()
        == "b609b316db5056bdca566a2837a22e1e5a25b2b237aecea7997185d33d1876ed"
    )
    drawn = [state["stem.0.0.weight"][0, 0, 0], state["heads.0.3.weight"][0, :3, 0, 0], torch.rand(3)]
    torch.testing.assert_close(
        torch.cat(drawn),
        torch.tensor(
            [0.1778959, -0.1535488, -0.3734089, 0.06536209, 0.02883982, 0.06520661, 0.7551488, 0.6538261, 0.7440297]
        ),
        rtol=1e-5,
        atol=0,
    )

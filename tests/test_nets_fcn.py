"""FCN: its levels, and what each of its three arguments changes."""

import pytest
import torch

from roadseg.nets.counts import parameters
from roadseg.nets.fcn import FCN
from tests.structure import sizes


def test_the_way_up_mirrors_the_way_down():
    expected = {
        "down.0": (32, 65, 97),
        "down.1": (64, 33, 49),
        "down.2": (128, 17, 25),
        "down.3": (256, 9, 13),
        "down.4": (512, 5, 7),
        "middle": (512, 3, 4),
        "up.0": (256, 5, 7),
        "up.1": (128, 9, 13),
        "up.2": (64, 17, 25),
        "up.3": (32, 33, 49),
        "up.4": (32, 65, 97),
        "classifier": (11, 65, 97),
    }
    assert sizes(FCN(11), expected, 65, 97) == expected


@pytest.mark.parametrize("arguments", [{}, {"skip": False}, {"dropout": 0.3}, {"dilation": 4}])
def test_parameters_are_those_of_the_formula_whatever_the_arguments(arguments):
    """Weights and norms of 3x3 convolutions without bias, then the classifier's 1x1 with one. No count is published."""
    pairs = [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 512)]
    pairs += [(512, 256), (256, 128), (128, 64), (64, 32), (32, 32)]
    assert parameters(FCN(19, **arguments)) == sum(9 * a * b + 2 * b for a, b in pairs) + 33 * 19 == 5_507_475


def logits(image, *, training=False, **arguments):
    torch.manual_seed(0)
    net = FCN(3, **arguments).train(training)
    with torch.no_grad():
        return net(image)[0]


def test_without_skips_fine_detail_is_lost():
    """A checkerboard, whose rows and columns are one pixel, pools to what a plain image does; only skips see it."""
    plain = torch.full((1, 3, 64, 64), 1.0)
    board = plain.clone()
    board[..., ::2, ::2] = board[..., 1::2, 1::2] = -1.0

    def roughness(**arguments):
        inner = logits(board, **arguments)[..., 16:48, 16:48]
        return (inner[..., 1:] - inner[..., :-1]).abs().mean() / inner.abs().mean()

    assert roughness(skip=True) > 5 * roughness(skip=False)


def test_dropout_acts_in_training_only():
    image = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(logits(image, dropout=0.5), logits(image), rtol=0, atol=0)
    assert not torch.allclose(logits(image, training=True, dropout=0.5), logits(image, training=True))


def test_dilation_widens_what_a_pixel_sees():
    """Without skips the reach is that of the convolution at 1/32."""

    def reach(dilation):
        torch.manual_seed(0)
        net = FCN(2, skip=False, dilation=dilation).eval()
        image = torch.randn(1, 3, 64, 512, requires_grad=True)
        net(image)[0, :, 32, 256].sum().backward()
        return int((image.grad.abs().sum(dim=(0, 1, 2)) > 0).sum())

    assert reach(3) > reach(1) + 64

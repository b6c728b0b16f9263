"""The losses, by name. Each is a function of logits BCHW (any float type) and target int64 BHW (train ids, 255 =
ignore).

Logits smaller than the target, those of training heads, are held against the target's pixel at the middle of each
position. All of them return a float32 scalar and compute in float32, under autocast as well. Ignored pixels count
nowhere, in no denominator either: a batch in which every pixel is ignored costs 0 and its gradient is 0.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from roadseg.errors import UserError

Loss = Callable[[Tensor, Tensor], Tensor]

IGNORE = 255
GAMMA = 2.0
"""Of the focal loss: Lin 2017, section 5.1."""
HARD_PROBABILITY = 0.7
"""OHEM keeps pixels whose true class has less probability than this."""
MIN_KEPT = 1 / 16
"""OHEM keeps at least this share of the labelled pixels."""


def _prepared(loss: Loss) -> Loss:
    """`loss` for logits of any float type and size: it gets them in float32 and a target of their height and width."""

    def prepared(logits: Tensor, target: Tensor) -> Tensor:
        return loss(logits.float(), _at(target, logits.shape[-2:]))

    return prepared


def _at(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """The target's pixels at the middle of each of `size` = (height, width) positions. int64 BHW."""
    if target.shape[-2:] == size:
        return target
    rows, columns = (
        ((torch.arange(new, device=target.device) + 0.5) * (old / new)).long()
        for new, old in zip(size, target.shape[-2:], strict=True)
    )
    return target[:, rows[:, None], columns]


def cross_entropy(weights: Tensor | None = None) -> Loss:
    """Mean over the labelled pixels of -log p(true class). `weights` are not used."""
    return weighted_cross_entropy(None)


def weighted_cross_entropy(weights: Tensor | None = None) -> Loss:
    """torch's: sum of w(y) * -log p(y) over the sum of w(y). `weights`: C of them; None is all ones."""

    @_prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = _pixels(logits, target, weights)
        return _mean(per_pixel, weight_BHW)

    return loss


def focal(weights: Tensor | None = None) -> Loss:
    """Cross-entropy times (1 - p(true class)) ** 2: Lin 2017, equation 5, `weights` being its alpha.

    Divided by the sum of the pixels' weights: not by the number of objects, as in detection, nor by the sum of the
    modulated weights, which would undo the focus.
    """

    @_prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = _pixels(logits, target, weights)
        return _mean((1 - torch.exp(-per_pixel)) ** GAMMA * per_pixel, weight_BHW)

    return loss


def ohem(weights: Tensor | None = None) -> Loss:
    """Weighted cross-entropy over hard pixels only: those with p(true class) < 0.7, at least 1/16 of the labelled ones.

    Shrivastava 2016, in the form that segmentation uses. The choice looks at probabilities, not at weights; the mean
    over the chosen is weighted, like `weighted_cross_entropy`.
    """

    @_prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = _pixels(logits, target, weights)
        return _mean(per_pixel, weight_BHW * _hard(per_pixel.detach(), target != IGNORE))

    return loss


def dice(weights: Tensor | None = None) -> Loss:
    """Soft Dice plus cross-entropy, both weighing 1. `weights` are not used: Dice counts each class once as it is.

    Dice (Milletari 2016 with plain sums in the denominator) is 1 - mean over the classes present in the batch of
    2 sum(p y) / (sum(p) + sum(y)), the sums going over the labelled pixels of the whole batch. Alone it trains badly
    from scratch: its gradient passes through the softmax and so vanishes exactly where the network is surely wrong,
    and for a class of a few pixels it is mostly noise. Cross-entropy is strong there; hence the sum, as in nnU-Net
    (Isensee 2021).
    """

    @_prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = _pixels(logits, target, None)
        return _mean(per_pixel, weight_BHW) + _soft_dice(logits, target)

    return loss


def boundary(logits: Tensor, target: Tensor) -> Tensor:
    """For a training head of one channel, which says where classes meet: binary cross-entropy plus Dice (STDC: Fan et
    al. 2021, section 3.3, equations 3 and 4; there the truth is a Laplacian of the labels).

    A position of B1HW logits is on a boundary where one of the target's pixels in it has a right or lower neighbour of
    another class; an ignored neighbour makes none. Positions without a labelled pixel count nowhere.
    """
    with torch.autocast(logits.device.type, enabled=False):
        truth, labelled = boundaries(target, logits.shape[-2:])
        said = logits[:, 0].float()
        per_pixel = functional.binary_cross_entropy_with_logits(said, truth, reduction="none")
        probability = said.sigmoid() * labelled
        overlap = (probability * truth).sum()
        dice = 1 - (2 * overlap + 1) / (probability.square().sum() + truth.sum() + 1)
        return _mean(per_pixel, labelled) + dice * labelled.any()


def boundaries(target: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of target int64 BHW: float32 [B, *size], 1 where classes meet in a position, and 1 where it has a label."""
    labelled = target != IGNORE
    edges = torch.zeros_like(target, dtype=torch.float32)
    right = (target[:, :, 1:] != target[:, :, :-1]) & labelled[:, :, 1:] & labelled[:, :, :-1]
    lower = (target[:, 1:] != target[:, :-1]) & labelled[:, 1:] & labelled[:, :-1]
    edges[:, :, :-1] += right
    edges[:, :-1] += lower
    truth, known = (functional.adaptive_max_pool2d(one[:, None], size)[:, 0] for one in (edges, labelled.float()))
    return truth.clamp_max(1), known


def _pixels(logits: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """-log p(true class) and the weight of each pixel, float32 BHW; both 0 where the target is ignored."""
    per_pixel = functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    labelled = target != IGNORE
    if weights is None:
        return per_pixel, labelled.float()
    weight_C = weights.to(logits.device, torch.float32)
    return per_pixel, weight_C[target.where(labelled, 0)] * labelled


def _mean(per_pixel: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean; 0, not NaN, where all weights are 0."""
    return (per_pixel * weight).sum() / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


def _hard(per_pixel: Tensor, labelled: Tensor) -> Tensor:
    """OHEM's choice: bool BHW."""
    hard = labelled & (per_pixel > -math.log(HARD_PROBABILITY))
    wanted = math.ceil(MIN_KEPT * int(labelled.sum()))
    if int(hard.sum()) >= wanted:
        return hard
    least = per_pixel[labelled].topk(wanted, sorted=False).values.min()
    return labelled & (per_pixel >= least)


def _soft_dice(logits: Tensor, target: Tensor) -> Tensor:
    classes = torch.arange(logits.shape[1], device=logits.device)
    is_class_BCHW = target[:, None] == classes[:, None, None]
    probability_BCHW = logits.softmax(dim=1) * (target != IGNORE)[:, None]
    pixels_C = is_class_BCHW.sum(dim=(0, 2, 3))
    overlap_C = (probability_BCHW * is_class_BCHW).sum(dim=(0, 2, 3))
    present_C = pixels_C > 0
    miss_C = 1 - 2 * overlap_C / (probability_BCHW.sum(dim=(0, 2, 3)) + pixels_C.clamp_min(1))
    return (miss_C * present_C).sum() / present_C.sum().clamp_min(1)


LOSSES: dict[str, Callable[[Tensor | None], Loss]] = {
    "cross_entropy": cross_entropy,
    "weighted_cross_entropy": weighted_cross_entropy,
    "focal": focal,
    "ohem": ohem,
    "dice": dice,
}


def build(name: str, weights: Sequence[float] | None) -> Loss:
    """The loss of that name over `weights`, one a class. Raises UserError on an unknown name."""
    if name not in LOSSES:
        raise UserError(f"there is no loss {name!r}: choose one of {', '.join(LOSSES)}")
    return LOSSES[name](None if weights is None else torch.tensor(weights, dtype=torch.float32))

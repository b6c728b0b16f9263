"""Losses that are a mean over pixels: cross-entropy and what weighs its pixels otherwise."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from roadseg.distributed import averaged

Loss = Callable[[Tensor, Tensor], Tensor]

IGNORE = 255


def prepared(loss: Loss) -> Loss:
    """`loss` for logits of any float type and size: it gets them in float32 and a target of their height and width."""

    def whole(logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return loss(logits.float(), _at(target, logits.shape[-2:]))

    return whole


def _at(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """The target's pixels at the middle of each of `size` = (height, width) positions. int64 BHW."""
    if target.shape[-2:] == size:
        return target
    rows, columns = (
        ((torch.arange(new, device=target.device) + 0.5) * (old / new)).long()
        for new, old in zip(size, target.shape[-2:], strict=True)
    )
    return target[:, rows[:, None], columns]


def cross_entropy() -> Loss:
    """Mean over the labelled pixels of -log p(true class)."""
    return weighted_cross_entropy(None)


def weighted_cross_entropy(weights: Tensor | None) -> Loss:
    """torch's: sum of w(y) * -log p(y) over the sum of w(y). `weights`: C of them; None is all ones."""

    @prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = negative_log(logits, target, weights)
        return mean(per_pixel, weight_BHW)

    return loss


def focal(weights: Tensor | None, gamma: float = 2.0) -> Loss:
    """Cross-entropy times (1 - p(true class)) ** gamma: Lin 2017, equation 5, `weights` being its alpha; its gamma is 2
    (section 5.1).

    Divided by the sum of the pixels' weights: not by the number of objects, as in detection, nor by the sum of the
    modulated weights, which would undo the focus.
    """

    @prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = negative_log(logits, target, weights)
        wrong = (-torch.expm1(-per_pixel)).clamp_min(1e-8)  # of 0 ** gamma the gradient may be infinite
        return mean(wrong**gamma * per_pixel, weight_BHW)

    return loss


def ohem(weights: Tensor | None, threshold: float = 0.7, kept: float = 1 / 16) -> Loss:
    """Weighted cross-entropy over hard pixels only: those with p(true class) < `threshold`, at least a share `kept` of
    the labelled ones.

    Shrivastava 2016, in the form that segmentation uses. The choice looks at probabilities, not at weights; the mean
    over the chosen is weighted, like `weighted_cross_entropy`. Where several processes train together, each keeps its
    own share `kept`.
    """

    if not 0 < threshold <= 1 or not 0 <= kept <= 1:
        raise ValueError("`threshold` must be above 0 and at most 1, `kept` from 0 to 1")

    @prepared
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        per_pixel, weight_BHW = negative_log(logits, target, weights)
        return mean(per_pixel, weight_BHW * _hard(per_pixel.detach(), target != IGNORE, threshold, kept))

    return loss


def negative_log(logits: Tensor, target: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """-log p(true class) and the weight of each pixel, float32 BHW; both 0 where the target is ignored."""
    per_pixel = functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="none")
    labelled = target != IGNORE
    if weights is None:
        return per_pixel, labelled.float()
    weight_C = weights.to(logits.device, torch.float32)
    return per_pixel, weight_C[target.where(labelled, 0)] * labelled


def mean(per_pixel: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean; 0, not NaN, where all weights are 0. Several processes divide by the weights of them all."""
    total = averaged(weight.sum())
    return (per_pixel * weight).sum() / total.where(total > 0, 1)


def _hard(per_pixel: Tensor, labelled: Tensor, threshold: float, kept: float) -> Tensor:
    """OHEM's choice: bool BHW."""
    hard = labelled & (per_pixel > -math.log(threshold))
    wanted = math.ceil(kept * int(labelled.sum()))
    if int(hard.sum()) >= wanted:
        return hard
    least = per_pixel[labelled].topk(wanted, sorted=False).values.min()
    return labelled & (per_pixel >= least)

"""Losses that compare a class's whole region with the truth: Dice, Jaccard and Lovász.

All go over the labelled pixels of the whole batch, and are means over the classes that its labels show: a class counts
as much as any other, however few its pixels. Where several processes train together, Dice and Jaccard add up the sums
of all of them; Lovász, which sorts, takes each process's pixels for themselves.
"""

import torch
from torch import Tensor

from roadseg.distributed import total
from roadseg.losses.pixels import Loss, Pixels, cross_entropy


def soft_dice() -> Loss:
    """1 - 2 sum(p y) / (sum(p) + sum(y)): Milletari 2016 with plain sums in the denominator.

    Alone it trains badly from scratch: its gradient passes through the softmax and so vanishes exactly where the
    network is surely wrong, and for a class of a few pixels it is mostly noise. Add cross-entropy, as `dice` does.
    """

    def of(pixels: Pixels) -> Tensor:
        overlap_C, said_C, true_C = total(pixels.regions)
        return _over_present(1 - 2 * overlap_C / (said_C + true_C.clamp_min(1)), true_C)

    return Loss(of)


def jaccard() -> Loss:
    """1 - sum(p y) / (sum(p) + sum(y) - sum(p y)): the IoU of probabilities (Rahman and Wang 2016, equation 3). Alone
    it has soft Dice's weaknesses."""

    def of(pixels: Pixels) -> Tensor:
        overlap_C, said_C, true_C = total(pixels.regions)
        return _over_present(1 - overlap_C / (said_C + true_C - overlap_C).clamp_min(1), true_C)

    return Loss(of)


def lovasz() -> Loss:
    """Lovász-softmax (Berman et al. 2018, section 3.1, equations 8 and 9): a convex surface through the IoU that whole
    sets of wrong pixels cost. It sorts the pixels once a class, which costs more than all other losses here."""

    def of(pixels: Pixels) -> Tensor:
        probabilities_PC = pixels.probability.movedim(1, 3)[pixels.labelled]
        truth_P = pixels.target[pixels.labelled]
        costs = [_of_class(probabilities_PC[:, c], truth_P == c) for c in truth_P.unique().tolist()]
        return torch.stack(costs).mean() if costs else pixels.negative_log.sum()

    return Loss(of)


def dice() -> Loss:
    """Soft Dice plus cross-entropy, both weighing 1, as in nnU-Net (Isensee 2021). Cross-entropy is strong exactly
    where soft Dice is weak."""
    region, pixel = soft_dice(), cross_entropy()
    return Loss(lambda pixels: region.of(pixels) + pixel.of(pixels))


def _over_present(cost_C: Tensor, true_C: Tensor) -> Tensor:
    present_C = true_C > 0
    return (cost_C * present_C).sum() / present_C.sum().clamp_min(1)


def _of_class(probability_P: Tensor, is_class_P: Tensor) -> Tensor:
    """The Lovász extension of a class's Jaccard loss at its errors (algorithm 1 of the paper).

    The costs are float64: they are near 1, and a million pixels make steps of a millionth between them.
    """
    errors, order = (is_class_P.to(probability_P.dtype) - probability_P).abs().sort(descending=True)
    ordered = is_class_P[order].double()
    total = ordered.sum()
    cost = 1 - (total - ordered.cumsum(0)) / (total + (1 - ordered).cumsum(0))
    steps = torch.cat([cost[:1], cost.diff()])
    return (errors.double() @ steps).to(probability_P.dtype)

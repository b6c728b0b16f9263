"""Losses that are a mean over pixels: cross-entropy and what weighs its pixels otherwise."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from roadseg import kernels
from roadseg.distributed import averaged
from roadseg.labels import IGNORE
from roadseg.named import in_range


class Pixels:
    """What losses are computed from: logits, a target, and what several of them need of both, computed once."""

    def __init__(self, logits: Tensor, target: Tensor) -> None:
        # class by class, as losses go over them: in one copy where their type changes too, in one of its own where not
        wide = torch.promote_types(logits.dtype, torch.float32)
        self.given = logits.to(wide, memory_format=torch.contiguous_format).contiguous()
        self.target = target.contiguous()

    @property
    def fit_kernels(self) -> bool:
        """Whether this machine has kernels for what they are."""
        return self.given.dtype == torch.float32 and kernels.usable(self.given, self.target)

    @cached_property
    def logits(self) -> Tensor:
        """At the target's size. float32 BCHW, or float64."""
        size = self.target.shape[-2:]
        if self.given.shape[-2:] == size:
            return self.given
        return functional.interpolate(self.given, size=size, mode="bilinear")

    @cached_property
    def labelled(self) -> Tensor:
        """bool BHW."""
        return self.target != IGNORE

    @cached_property
    def truth(self) -> Tensor:
        """The target with 0 where it is ignored, int64 BHW."""
        return self.target.where(self.labelled, 0)

    @cached_property
    def log_probability(self) -> Tensor:
        """BCHW."""
        return self.logits.log_softmax(dim=1)

    @cached_property
    def probability(self) -> Tensor:
        """BCHW."""
        return self.log_probability.exp()

    @cached_property
    def negative_log(self) -> Tensor:
        """-log p(true class), 0 where the target is ignored. BHW."""
        if self.fit_kernels:
            found: Tensor = kernels.CrossEntropy.apply(self.given, self.target, IGNORE)
            return found
        return functional.nll_loss(self.log_probability, self.target, ignore_index=IGNORE, reduction="none")

    @cached_property
    def regions(self) -> Tensor:
        """Of each class, over the labelled pixels: sum(p y), sum(p), sum(y). [3, C], of the logits' type."""
        if self.fit_kernels:
            found: Tensor = kernels.Regions.apply(self.given, self.target, IGNORE)
            return found
        probability_BCHW = self.probability * self.labelled[:, None]
        right_BHW = probability_BCHW.gather(1, self.truth[:, None])[:, 0]  # 0 where the target is ignored
        # one after another: in float32 the millionth pixel would hardly count
        overlap_C = right_BHW.new_zeros(self.given.shape[1], dtype=torch.float64)
        overlap_C = overlap_C.index_add(0, self.truth.flatten(), right_BHW.flatten().double()).to(right_BHW.dtype)
        said_C = probability_BCHW.sum(dim=(0, 2, 3))
        true_C = torch.bincount(self.target[self.labelled], minlength=len(said_C)).to(said_C.dtype)
        return torch.stack([overlap_C, said_C, true_C])

    def weighed(self, weights: Tensor | None) -> Tensor:
        """The weight of each pixel: `weights`, C of them, by its true class, else 1; 0 where it is ignored. BHW."""
        if weights is None:
            return self.labelled.float()
        return weights.to(self.given.device, torch.float32)[self.truth] * self.labelled


@dataclass(frozen=True)
class Loss:
    """A function of logits BCHW, of any float type and size, and target int64 BHW."""

    of: Callable[[Pixels], Tensor]
    """A scalar: float32, of float64 logits float64."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return self.of(Pixels(logits, target))


def reduced(target: Tensor, size: tuple[int, ...]) -> Tensor:
    """The target's pixels at the middle of each of `size` = (height, width) positions. int64 BHW."""
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
    return Loss(lambda pixels: mean(pixels.negative_log, pixels.weighed(weights)))


def focal(weights: Tensor | None, gamma: float = 2.0) -> Loss:
    """Cross-entropy times (1 - p(true class)) ** gamma: Lin 2017, equation 5, `weights` being its alpha; its gamma is 2
    (section 5.1).

    Divided by the sum of the pixels' weights: not by the number of objects, as in detection, nor by the sum of the
    modulated weights, which would undo the focus.
    """
    in_range(gamma=(gamma, 0, 100))

    def of(pixels: Pixels) -> Tensor:
        wrong = (-torch.expm1(-pixels.negative_log)).clamp_min(1e-8)  # of 0 ** gamma the gradient may be infinite
        return mean(wrong**gamma * pixels.negative_log, pixels.weighed(weights))

    return Loss(of)


def ohem(weights: Tensor | None, threshold: float = 0.7, kept: float = 1 / 16) -> Loss:
    """Weighted cross-entropy over hard pixels only: those with p(true class) < `threshold`, at least a share `kept` of
    the labelled ones.

    Shrivastava 2016, in the form that segmentation uses. The choice looks at probabilities, not at weights; the mean
    over the chosen is weighted, like `weighted_cross_entropy`. Where several processes train together, each keeps its
    own share `kept`.
    """

    in_range(threshold=(threshold, 1e-6, 1), kept=(kept, 0, 1))

    def of(pixels: Pixels) -> Tensor:
        hard = _hard(pixels.negative_log.detach(), pixels.labelled, threshold, kept)
        return mean(pixels.negative_log, pixels.weighed(weights) * hard)

    return Loss(of)


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

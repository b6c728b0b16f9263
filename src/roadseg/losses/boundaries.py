"""Losses that look at where classes meet."""

import torch
from torch import Tensor
from torch.nn import functional

from roadseg.distributed import total
from roadseg.labels import IGNORE
from roadseg.losses.pixels import Loss, Pixels, mean


def edge() -> Loss:
    """Cross-entropy over the pixels on a boundary alone: those with a labelled neighbour, of the four, of another
    class. A part of sums, for outlines and thin things; 0 where no classes meet."""

    def of(pixels: Pixels) -> Tensor:
        right, lower = _differences(pixels.target)
        on_edge = torch.zeros_like(pixels.labelled)
        on_edge[:, :, :-1] |= right
        on_edge[:, :, 1:] |= right
        on_edge[:, :-1] |= lower
        on_edge[:, 1:] |= lower
        return mean(pixels.negative_log, on_edge.float())

    return Loss(of)


def boundary(logits: Tensor, target: Tensor) -> Tensor:
    """For a training head of one channel, which says where classes meet: binary cross-entropy plus Dice (STDC: Fan et
    al. 2021, section 3.3, equations 3 and 4; there the truth is a Laplacian of the labels).

    A position of B1HW logits is on a boundary where one of the target's pixels in it has a right or lower neighbour of
    another class; an ignored neighbour makes none. Positions without a labelled pixel count nowhere.
    """
    with torch.autocast(logits.device.type, enabled=False):
        truth, labelled = _boundaries(target, logits.shape[-2:])
        said = logits[:, 0].float()
        per_pixel = functional.binary_cross_entropy_with_logits(said, truth, reduction="none")
        probability = said.sigmoid() * labelled
        overlap = total((probability * truth).sum())
        dice = 1 - (2 * overlap + 1) / (total(probability.square().sum()) + total(truth.sum()) + 1)
        return mean(per_pixel, labelled) + dice * (total(labelled.sum()) > 0)


def _boundaries(target: Tensor, size: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Of target int64 BHW: float32 [B, *size], 1 where classes meet in a position, and 1 where it has a label."""
    edges = torch.zeros_like(target, dtype=torch.float32)
    right, lower = _differences(target)
    edges[:, :, :-1] += right
    edges[:, :-1] += lower
    labelled = (target != IGNORE).float()
    truth, known = (functional.adaptive_max_pool2d(one[:, None], size)[:, 0] for one in (edges, labelled))
    return truth.clamp_max(1), known


def _differences(target: Tensor) -> tuple[Tensor, Tensor]:
    """Whether a pixel and its right neighbour, bool [B, H, W - 1], or lower one, [B, H - 1, W], are labelled and of two
    classes."""
    labelled = target != IGNORE
    right = (target[:, :, 1:] != target[:, :, :-1]) & labelled[:, :, 1:] & labelled[:, :, :-1]
    lower = (target[:, 1:] != target[:, :-1]) & labelled[:, 1:] & labelled[:, :-1]
    return right, lower

"""Losses that make one network imitate another, by name. Each is a function of the student's and the teacher's logits,
BCHW of any float type and the same shape, and of the target, int64 BHW (255 = ignore).

They look at the target for one thing only: ignored pixels count nowhere, since padding is among them. Both return a
float32 scalar, 0 where nothing is labelled, and no gradient goes to the teacher. Processes that train together take the
mean over what all of them see.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from roadseg.errors import UserError
from roadseg.labels import IGNORE
from roadseg.losses.pixels import mean

Imitation = Callable[[Tensor, Tensor, Tensor], Tensor]


def logit(temperature: float) -> Imitation:
    """At each pixel, over the classes: T^2 KL(teacher || student) of the softmax at temperature T, mean over the pixels
    (Hinton et al. 2015, section 2; T^2 keeps the gradient's size)."""

    def loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        per_class = _divergence(student, teacher.detach(), temperature, dim=1)
        return mean(temperature**2 * per_class.sum(dim=1), (target != IGNORE).float())

    return loss


def channel(temperature: float) -> Imitation:
    """Of each class, over the pixels: T^2 KL(teacher || student) of the softmax over the scene at temperature T, mean
    over classes and scenes that have labels (channel-wise distillation: Shu et al. 2021, equations 3 to 5).

    Where `logit` asks each pixel which class it is, this asks each class where it is, and so dwells on the places that
    the teacher finds most telling. The paper's temperature is 4 and its weight 3 (section 4.1, on logits). Here logits
    are compared at the input's size, enlarged as they are deployed, so that student and teacher may have other strides.
    """

    def loss(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        ignored = (target == IGNORE)[:, None].flatten(2)
        # a wholly ignored scene keeps its pixels, or its softmax would be of nothing; it counts 0 below
        hidden = ignored & ~ignored.all(dim=2, keepdim=True)
        low = torch.finfo(torch.float32).min
        mine, its = (
            (one.float().flatten(2) / temperature).masked_fill(hidden, low) for one in (student, teacher.detach())
        )
        per_pixel = _divergence(mine, its, 1.0, dim=2).masked_fill(ignored, 0.0)
        return mean(temperature**2 * per_pixel.sum(dim=2).mean(dim=1), (~ignored).any(dim=2)[:, 0].float())

    return loss


def _divergence(student: Tensor, teacher: Tensor, temperature: float, dim: int) -> Tensor:
    """p log(p / q) of the two softmaxes along `dim`, p the teacher's: float32, of the logits' shape."""
    with torch.autocast(student.device.type, enabled=False):
        mine = functional.log_softmax(student.float() / temperature, dim=dim)
        its = functional.log_softmax(teacher.float() / temperature, dim=dim)
        return functional.kl_div(mine, its, reduction="none", log_target=True)


DISTILLATIONS: dict[str, Callable[[float], Imitation]] = {"channel": channel, "logit": logit}


def build(name: str, temperature: float) -> Imitation:
    """The loss of that name at that temperature. Raises UserError on an unknown name."""
    if name not in DISTILLATIONS:
        raise UserError(f"there is no distillation {name!r}: choose one of {', '.join(DISTILLATIONS)}")
    return DISTILLATIONS[name](temperature)

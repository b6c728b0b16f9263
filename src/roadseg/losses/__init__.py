"""The losses, by name, and sums of them. Each is a function of logits BCHW (any float type) and target int64 BHW (train
ids, 255 = ignore).

Logits of another size than the target are enlarged to it, bilinearly; to compare them at their own size, as those of
training heads are, give them the target `reduced` to it. All of the losses compute in float32 at least, under autocast
as well, and return such a scalar. Ignored pixels count nowhere, in no denominator either: a batch in which every pixel
is ignored costs 0 and its gradient is 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from roadseg import named
from roadseg.errors import UserError
from roadseg.losses.boundaries import boundary, edge
from roadseg.losses.pixels import Loss, cross_entropy, focal, ohem, reduced, weighted_cross_entropy
from roadseg.losses.regions import dice, jaccard, lovasz, soft_dice

__all__ = ["LOSSES", "Loss", "boundary", "build", "reduced"]

LOSSES: dict[str, Callable[..., Loss]] = {
    "cross_entropy": cross_entropy,
    "weighted_cross_entropy": weighted_cross_entropy,
    "focal": focal,
    "ohem": ohem,
    "dice": dice,
    "soft_dice": soft_dice,
    "jaccard": jaccard,
    "lovasz": lovasz,
    "edge": edge,
}

Weights = Mapping[str, Sequence[float]]
"""Class weights by name (roadseg.stages.profile.class_weights), C of each."""
CLASS_WEIGHTS, NONE = "class_weights", "none"


def build(text: str, weights: Weights | None = None, class_weights: str = "enet") -> Loss:
    """The loss that `text` names: a name, a name with settings, or a sum of these with factors.

        dice
        focal(gamma=3)
        weighted_cross_entropy(class_weights=class_balanced) + 0.5 * lovasz

    Losses that use class weights take `weights[class_weights]` unless they say other ones, or `none`. Without `weights`
    all classes weigh the same. Raises UserError where it cannot be read, or there is no such loss, setting or weights.
    """
    parts = [(term.factor, _loss(text, term, weights, class_weights)) for term in named.terms("loss", text)]
    if len(parts) == 1 and parts[0][0] == 1:
        return parts[0][1]

    return Loss(lambda pixels: torch.stack([factor * loss.of(pixels) for factor, loss in parts]).sum())


def _loss(text: str, term: named.Term, weights: Weights | None, class_weights: str) -> Loss:
    known, given = named.settings(LOSSES[term.name]) if term.name in LOSSES else {}, dict[str, Any](term.settings)
    weighted = known.pop("weights", None)
    named.check("loss", text, term, LOSSES, known | ({CLASS_WEIGHTS: str} if weighted else {}))
    if weighted:
        given["weights"] = _tensor(text, given.pop(CLASS_WEIGHTS, class_weights), weights)
    return named.called("loss", text, LOSSES[term.name], given)


def _tensor(text: str, chosen: object, weights: Weights | None) -> Tensor | None:
    if chosen == NONE or weights is None:
        return None
    if chosen not in weights:
        raise UserError(f"loss {text!r}: there are no class weights {chosen!r}: choose {', '.join(weights)} or {NONE}")
    return torch.tensor(weights[str(chosen)], dtype=torch.float32)

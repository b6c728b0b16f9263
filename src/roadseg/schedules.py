"""Learning-rate schedules: training progress 0..1 -> factor 0..1 on the peak learning rate.

Progress is a share of all steps, 0 at the first step and 1 after the last, so that a schedule knows nothing of
batches or epochs, and a resumed training needs no state of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from roadseg import named
from roadseg.named import in_range

Factor = Callable[[float], float]

WARM_UP = 0.03
"""Share of training over which a schedule rises to its peak, where it does not say another."""
WARM_UP_START = 0.1
"""Factor at which that begins."""


@dataclass(frozen=True)
class Schedule:
    """Called with progress, the factor of the peak learning rate."""

    rate: Factor
    momentum: Factor | None = None
    """Progress -> the optimizer's momentum, or first beta; None leaves it alone."""

    def __call__(self, progress: float) -> float:
        return self.rate(min(progress, 1.0))


def constant(warm_up: float = WARM_UP) -> Schedule:
    """The peak, all the time."""
    return _warmed(lambda progress: 1.0, warm_up)


def step(every: float = 1 / 3, factor: float = 0.1, warm_up: float = WARM_UP) -> Schedule:
    """Times `factor` after each share `every` of training."""
    in_range(every=(every, 1e-3, 1), factor=(factor, 0, 1), warm_up=(warm_up, 0, 0.9))
    return Schedule(_risen(lambda progress: factor ** math.floor(progress / every + 1e-9), warm_up))


def poly(power: float = 0.9, restarts: float = 0, warm_up: float = WARM_UP) -> Schedule:
    """(1 - progress) ** power, down to 0: DeepLab's (Chen 2017, section 4.1), taken over by Fast-SCNN and DDRNet.

    `restarts`: so many times it starts anew from the peak, in equal cycles (SGDR's, Loshchilov and Hutter 2017, with
    this curve in place of its cosine).
    """
    in_range(power=(power, 0, 100))
    return _warmed(_cycles(lambda progress: (1 - progress) ** power, restarts), warm_up)


def cosine(restarts: float = 0, warm_up: float = WARM_UP) -> Schedule:
    """Half a cosine from the peak down to 0 (Loshchilov and Hutter 2017, equation 5), and anew `restarts` times."""
    return _warmed(_cycles(lambda progress: _between(1.0, 0.0, progress), restarts), warm_up)


def one_cycle(
    rise: float = 0.3, start: float = 25.0, end: float = 25e4, low_momentum: float = 0.0, high_momentum: float = 0.0
) -> Schedule:
    """Smith & Topin 2017 as torch does it (OneCycleLR), its defaults for the rate included: half a cosine up from
    1 / `start` to 1 over a share `rise`, half a cosine down to 1 / `end`.

    With both momenta (torch's are 0.85 and 0.95), momentum goes from the high one to the low one and back.
    """

    in_range(rise=(rise, 0, 0.99), start=(start, 1, 1e12), end=(end, 1, 1e12))
    in_range(low_momentum=(low_momentum, 0, 0.9999), high_momentum=(high_momentum, 0, 0.9999))
    if bool(low_momentum) != bool(high_momentum):
        raise ValueError("`low_momentum` and `high_momentum` go together")

    def rate(progress: float) -> float:
        if progress < rise:
            return _between(1 / start, 1.0, progress / rise)
        return _between(1.0, 1 / end, (progress - rise) / (1 - rise))

    def momentum(progress: float) -> float:
        if progress < rise:
            return _between(high_momentum, low_momentum, progress / rise)
        return _between(low_momentum, high_momentum, (progress - rise) / (1 - rise))

    return Schedule(rate, momentum if low_momentum and high_momentum else None)


def _warmed(factor: Factor, warm_up: float) -> Schedule:
    """A linear rise from a tenth to 1 over a share `warm_up`, then `factor` of the progress of the rest."""
    in_range(warm_up=(warm_up, 0, 0.9))

    def rate(progress: float) -> float:
        if progress < warm_up:
            return _rise(progress / warm_up)
        return factor((progress - warm_up) / (1 - warm_up))

    return Schedule(rate)


def _risen(factor: Factor, warm_up: float) -> Factor:
    """The same rise, laid over a factor that goes by the whole training's progress."""
    return lambda progress: factor(progress) * (_rise(progress / warm_up) if progress < warm_up else 1.0)


def _rise(progress: float) -> float:
    return WARM_UP_START + (1 - WARM_UP_START) * progress


def _cycles(factor: Factor, restarts: float) -> Factor:
    """`factor` over each of restarts + 1 equal parts; the very end is the end of the last."""
    in_range(restarts=(restarts, 0, 1e6))
    if restarts != int(restarts):
        raise ValueError("`restarts` must be a whole number")
    cycles = int(restarts) + 1

    def rate(progress: float) -> float:
        place = progress * cycles
        return factor(place - min(math.floor(place), cycles - 1))

    return rate


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": constant,
    "step": step,
    "poly": poly,
    "cosine": cosine,
    "one_cycle": one_cycle,
}


def build(text: str) -> Schedule:
    """The schedule that `text` names: poly, poly(power=0.9, restarts=2). Raises UserError where there is none."""
    return named.made("schedule", text, SCHEDULES)

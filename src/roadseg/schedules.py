"""Learning-rate schedules: training progress 0..1 -> factor 0..1 on the peak learning rate.

Progress is a share of all steps, 0 at the first step and 1 after the last, so that a schedule knows nothing of
batches or epochs.
"""

import math
from collections.abc import Callable

from roadseg.errors import UserError

Schedule = Callable[[float], float]

WARM_UP = 0.03
"""Share of training over which `poly` rises to its peak."""
WARM_UP_START = 0.1
"""Factor at which it starts."""
POWER = 0.9
"""DeepLab's (Chen 2017, section 4.1), taken over by Fast-SCNN and DDRNet."""

RISE = 0.3
"""Share of training over which `one_cycle` rises to its peak."""
START_DIVISOR = 25.0
END_DIVISOR = 25.0 * 1e4
"""Peak over first, and peak over last learning rate. These three are torch.optim.lr_scheduler.OneCycleLR's defaults."""


def poly(progress: float) -> float:
    """A short linear warm-up, then (1 - progress of the rest) ** 0.9, down to 0."""
    if progress < WARM_UP:
        return WARM_UP_START + (1 - WARM_UP_START) * progress / WARM_UP
    return ((1 - min(progress, 1.0)) / (1 - WARM_UP)) ** POWER


def one_cycle(progress: float) -> float:
    """Smith & Topin 2017 as torch does it: half a cosine up from 1/25 to 1, half a cosine down to almost nothing."""
    if progress < RISE:
        return _cosine(1 / START_DIVISOR, 1.0, progress / RISE)
    return _cosine(1.0, 1 / END_DIVISOR, (min(progress, 1.0) - RISE) / (1 - RISE))


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, Schedule] = {"poly": poly, "one_cycle": one_cycle}


def build(name: str) -> Schedule:
    """The schedule of that name. Raises UserError on an unknown one."""
    if name not in SCHEDULES:
        raise UserError(f"there is no schedule {name!r}: choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]

"""The schedules: their ends, their peak, and one-cycle against torch's."""

from itertools import pairwise

import pytest
import torch

from roadseg import schedules
from roadseg.errors import UserError
from roadseg.schedules import one_cycle, poly

EVERY = pytest.mark.parametrize("name", schedules.SCHEDULES)


@EVERY
def test_it_starts_above_zero_peaks_at_one_and_ends_at_nothing(name: str) -> None:
    schedule = schedules.build(name)
    factors = [schedule(step / 1000) for step in range(1001)]
    assert 0 < factors[0] < 0.2
    assert max(factors) == pytest.approx(1)
    assert 0 <= factors[-1] < 1e-5
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@EVERY
def test_it_has_no_jump(name: str) -> None:
    schedule = schedules.build(name)
    factors = [schedule(step / 10_000) for step in range(10_001)]
    assert max(abs(a - b) for a, b in pairwise(factors)) < 0.005


@EVERY
def test_rounding_past_the_end_stays_at_the_end(name: str) -> None:
    schedule = schedules.build(name)
    assert schedule(1 + 1e-12) == schedule(1.0)
    assert isinstance(schedule(1 + 1e-12), float)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 0.1), (0.015, 0.55), (0.03, 1.0), (0.515, 0.5**0.9), (1.0, 0.0)]
)
def test_poly_at_its_corners(progress: float, factor: float) -> None:
    assert poly(progress) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 1 / 25), (0.15, 0.52), (0.3, 1.0), (0.65, 0.500002), (1.0, 4e-6)]
)
def test_one_cycle_at_its_corners(progress: float, factor: float) -> None:
    assert one_cycle(progress) == pytest.approx(factor)


def test_one_cycle_is_torchs() -> None:
    """torch ends on its last step, so its progress goes by steps - 1, and its peak by 0.3 * steps - 1."""
    steps = 100_001
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    for progress in (0.0, 0.1, 0.29, 0.31, 0.5, 0.9, 1.0):
        torchs.last_epoch = round(progress * (steps - 1)) - 1
        optimizer.step()
        torchs.step()
        assert one_cycle(progress) == pytest.approx(torchs.get_last_lr()[0], abs=1e-4)


def test_an_unknown_schedule_is_answered_with_the_list() -> None:
    with pytest.raises(UserError, match="there is no schedule 'step': choose one of poly, one_cycle"):
        schedules.build("step")

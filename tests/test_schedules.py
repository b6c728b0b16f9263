"""The schedules: their ends, their peak, and one-cycle against torch's."""

from itertools import pairwise

import pytest
import torch

from roadseg import schedules
from roadseg.errors import UserError
from roadseg.schedules import cosine, one_cycle, poly, step

FALLING = pytest.mark.parametrize("name", ["poly", "cosine", "one_cycle"])
EVERY = pytest.mark.parametrize("name", schedules.SCHEDULES)


@FALLING
def test_it_starts_above_zero_peaks_at_one_and_ends_at_nothing(name: str) -> None:
    schedule = schedules.build(name)
    factors = [schedule(step / 1000) for step in range(1001)]
    assert 0 < factors[0] < 0.2
    assert max(factors) == pytest.approx(1)
    assert 0 <= factors[-1] < 1e-5
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@FALLING
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
    assert poly()(progress) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 1 / 25), (0.15, 0.52), (0.3, 1.0), (0.65, 0.500002), (1.0, 4e-6)]
)
def test_one_cycle_at_its_corners(progress: float, factor: float) -> None:
    assert one_cycle()(progress) == pytest.approx(factor)


def test_one_cycle_is_torchs() -> None:
    """torch ends on its last step, so its progress goes by steps - 1, and its peak by 0.3 * steps - 1."""
    steps = 100_001
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    for progress in (0.0, 0.1, 0.29, 0.31, 0.5, 0.9, 1.0):
        torchs.last_epoch = round(progress * (steps - 1)) - 1
        optimizer.step()
        torchs.step()
        assert one_cycle()(progress) == pytest.approx(torchs.get_last_lr()[0], abs=1e-4)


def test_one_cycles_momentum_is_torchs() -> None:
    steps = 100_001
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    torchs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps)
    momentum = schedules.build("one_cycle(low_momentum=0.85, high_momentum=0.95)").momentum
    assert momentum is not None and one_cycle().momentum is None
    for progress in (0.0, 0.1, 0.29, 0.31, 0.5, 0.9, 1.0):
        torchs.last_epoch = round(progress * (steps - 1)) - 1
        optimizer.step()
        torchs.step()
        assert momentum(progress) == pytest.approx(optimizer.param_groups[0]["momentum"], abs=1e-4)


def test_cosine_with_restarts_is_torchs() -> None:
    """Three cycles of 100 steps; the warm-up left out."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=100)
    mine = cosine(restarts=2, warm_up=0)
    for done in range(300):
        assert mine(done / 300) == pytest.approx(torchs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        torchs.step()
    assert mine(1.0) == 0


@pytest.mark.parametrize(("progress", "factor"), [(0.0, 1.0), (0.32, 1.0), (1 / 3, 0.1), (0.6, 0.1), (0.67, 0.01)])
def test_step_falls_by_its_factor_after_each_share(progress: float, factor: float) -> None:
    assert step(warm_up=0)(progress) == pytest.approx(factor)


def test_settings_change_the_curve() -> None:
    assert schedules.build("poly(power=2, warm_up=0)")(0.5) == pytest.approx(0.25)
    restarted = schedules.build("poly(power=1, restarts=1, warm_up=0)")
    assert [restarted(x) for x in (0, 0.25, 0.4999, 0.5, 0.75)] == pytest.approx([1, 0.5, 0.0002, 1, 0.5], abs=1e-3)
    assert schedules.build("constant")(0.7) == 1
    assert schedules.build("constant(warm_up=0.5)")(0.25) == pytest.approx(0.55)
    assert schedules.build("step(warm_up=0.5)")(0.25) == pytest.approx(0.55), "a warm-up does not move the steps"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("linear", r"there is no schedule 'linear': choose one of constant, step, poly, cosine, one_cycle"),
        (
            "poly(restart=2)",
            r"schedule 'poly\(restart=2\)': poly takes no restart=2.0; its settings: power, restarts",
        ),
        ("poly + step", r"schedule 'poly \+ step' is a sum: name one of constant"),
        ("step(every=0)", r"schedule 'step\(every=0\)': `every` \(=0\) must be from 0\.001 to 1"),
        ("cosine(restarts=1.5)", r"`restarts` must be a whole number"),
        ("one_cycle(rise=1)", r"`rise` \(=1\) must be from 0 to 0\.99"),
        ("one_cycle(low_momentum=0.85)", r"`low_momentum` and `high_momentum` go together"),
        ("poly(warm_up=1)", r"`warm_up` \(=1\) must be"),
        ("poly(power=-1)", r"schedule .*: `power` \(=-1\) must be from 0 to 100"),
        ("cosine(restarts=1e400)", r"cosine takes no restarts=inf"),
        ("step(factor=2)", r"`factor` \(=2\) must be from 0 to 1"),
        ("poly(", r"schedule 'poly\(' cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        schedules.build(text)

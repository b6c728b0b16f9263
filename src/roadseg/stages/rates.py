"""Learning rates by eye: the schedules drawn, and the range test that says which peak to search around.

The range test (Smith 2017, section 3.3) trains for some steps while the rate rises exponentially. The loss falls where
the rate is useful and bursts where it is too high. Writes models/rate/: rate.csv and rate.png.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
from rich.console import Console

from roadseg import figures, nets, paths, schedules
from roadseg.config import Config, Train
from roadseg.engine import Diverged
from roadseg.errors import StageFailure, UserError
from roadseg.scenes.plan import plan
from roadseg.schedules import Schedule
from roadseg.stages import registered, trainable
from roadseg.stages.progress import live
from roadseg.stages.training import Course, Recipe

POINTS = 500
SMOOTH = 0.9
"""Decay of the loss's moving average."""
FALL = 0.95
"""A smoothed loss whose lowest is not below so much of its first has not fallen: its batches differ by as much."""
BURST = 2.0
"""The test ends where the smoothed loss is so many times its lowest."""


def draw(config: Config, names: Sequence[str], out: Path) -> None:
    """Writes a picture of these schedules, or of the run's own and all others, with what train.phases multiply them by.
    UserError for one that there is not."""
    own = config.train.schedule
    chosen = list(names) or [own, *(name for name in schedules.SCHEDULES if name != own)]
    peak = config.search.learning_rate.middle
    places = [place / POINTS for place in range(POINTS + 1)]
    factors = _factors(config.train, places)
    built = {name: schedules.build(name) for name in chosen}
    rates = {
        name: [peak * factor * one(place) for place, factor in zip(places, factors, strict=True)]
        for name, one in built.items()
    }
    momenta = {name: [one.momentum(place) for place in places] for name, one in built.items() if one.momentum}
    figures.schedules(rates, momenta).savefig(paths.picture(out))
    Console().print(str(out), markup=False)


def _factors(train: Train, places: Sequence[float]) -> list[float]:
    """What train.phases multiply the learning rate by at these shares of the steps."""
    side = 1024  # of any scene: what share of the steps a phase has depends on it by the rounding of its batch alone
    made = plan(1e5 * train.batch * side**2, train.batch * side**2, (side, side), train.phases)
    return [made.at(round(place * made.steps))[0].rate for place in places]


def run(config: Config, network: str | None, *, steps: int, low: float, high: float, out: Path) -> float:
    """Prints where the loss falls fastest and returns that learning rate. UserError for a network that there is not."""
    if not low < high < math.inf:
        raise UserError(f"--low {low:g} must be below --high {high:g}, which must be a number")
    config = registered.pinned(config)
    nets.known([network] if network else [])
    paths.folder(out)
    name = network or config.search.networks[0]
    only = config.search.model_copy(update={"networks": (name,)})
    config = config.model_copy(
        update={"search": only, "train": config.train.model_copy(update={"setbacks": 0, "phases": ()})}
    )
    trainable.check(config)
    frame = tried(Course.open(config), name, steps, low, high)
    fell = len(frame) > 2 and frame["smooth"].min() <= FALL * frame["smooth"].iloc[0]
    if not fell and len(frame) < steps:
        raise StageFailure(f"rate: {name}'s loss bursts before it falls: give a lower --low than {low:g}")
    if not fell:
        raise StageFailure(
            f"rate: {name}'s loss does not fall between {low:g} and {high:g}: give a higher --high, or more --steps"
        )
    slope = frame["smooth"].diff() / frame["learning_rate"].map(math.log).diff()
    best = float(frame["learning_rate"].iloc[int(slope.argmin())])
    frame.to_csv(out / "rate.csv", index=False)
    figures.rates(frame, best).savefig(out / "rate.png")
    Console().print(
        f"{name}: the loss falls fastest at {best:.2g}: search.learning_rate could be "
        f"{{ low: {best / 10:.1g}, high: {best:.1g} }}\n{out / 'rate.csv'}, {out / 'rate.png'}",
        markup=False,
    )
    return best


def tried(course: Course, network: str, steps: int, low: float, high: float) -> pd.DataFrame:
    """A row a step until the loss bursts: learning_rate, loss, and the loss smoothed."""
    recipe = Recipe(network, course.config.search.losses[0], high, course.config.search.crops[0])
    training = course.begin(recipe, epochs=1, seed=course.config.seed)
    training.total_steps = steps
    last = (steps - 1) / steps  # progress at the last step
    training.schedule = Schedule(lambda progress: (low / high) ** (1 - progress / last))
    rows: list[dict[str, float]] = []
    average = lowest = math.nan
    epochs = steps / course.plan(recipe.crop, 1).steps
    with live(f"range test {network}", epochs, len(course.train), training.parts) as show, suppress(Diverged):
        for report in course.fit(training, recipe, epochs=1, reports=steps):
            show(report, None)
            average = report.loss if math.isnan(average) else SMOOTH * average + (1 - SMOOTH) * report.loss
            lowest = average if math.isnan(lowest) else min(lowest, average)
            if average > BURST * lowest:
                break
            rows.append({"learning_rate": report.learning_rate, "loss": report.loss, "smooth": average})
    return pd.DataFrame(rows)

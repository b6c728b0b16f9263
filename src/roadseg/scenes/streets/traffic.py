"""What moves: where each vehicle of a drive is in each frame.

x runs right from the road's middle, z ahead from the frame's camera, metres; traffic keeps right.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from roadseg.scenes.streets import people, vehicles
from roadseg.scenes.streets.model import Model
from roadseg.scenes.streets.vehicles import Vehicle

LANE = 3.3
AWAY, TOWARD = 0.0, np.pi


@dataclass(frozen=True)
class Item:
    """A model in its place."""

    model: Model
    x: float
    z: float
    heading: float
    strip: float
    """x of the strip that it belongs to (lane, sidewalk): what lies further from the camera's line is painted first."""


@dataclass(frozen=True)
class Mover:
    """A vehicle that comes `closing` metres nearer each frame, down to `nearest`, and then again from `span` beyond."""

    vehicle: Vehicle
    x: float
    heading: float
    start: float
    closing: float
    span: float
    nearest: float = 5.0

    def items(self, frame: int) -> Iterator[Item]:
        """Where it is in a frame; z from that frame's camera."""
        z = self.nearest + (self.start - self.closing * frame) % self.span
        for model, ahead in self.vehicle:
            dx, dz = ahead * np.sin(self.heading), ahead * np.cos(self.heading)
            yield Item(model, self.x + dx, z + dz, self.heading, self.x)


def plan(
    rng: np.random.Generator, number: int, step: float, road: tuple[int, float, float], tram_x: float
) -> Iterator[Mover]:
    """The vehicles of drive `number`, whose camera moves `step` metres a frame; each kind is in view in most frames.

    `road` is (lanes a direction, where they begin, the middle of our own); the tram's track lies at `tram_x`.
    """
    lanes, inner, own = road
    makers: dict[str, Callable[[], Vehicle]] = {
        "car": lambda: vehicles.car(rng), "bus": lambda: vehicles.bus(rng), "truck": lambda: vehicles.truck(rng),
        "cyclist": lambda: [(people.cyclist(rng), 0.0)], "motorcyclist": lambda: [(people.motorcyclist(rng), 0.0)],
    }  # fmt: skip
    for lane in range(lanes):  # those that come toward us
        deck = ["bus", "car", "car", "truck", "car", "motorcyclist", "car"]
        deck = deck[(first := int(rng.integers(len(deck)))) :] + deck[:first]
        span, closing = 18.0 * len(deck), step + float(rng.uniform(2, 9))
        for i, kind in enumerate(deck):
            slant = float(rng.uniform(0.5, 0.9)) if kind == "motorcyclist" else 0.0
            x = -(inner + LANE * (lane + 0.5))
            yield Mover(makers[kind](), x, TOWARD + slant, 18.0 * i + float(rng.uniform(-2, 2)), closing, span, 12.0)
    ahead = ("bus", "car", "truck", "car", "motorcyclist", "car", "car")[(number + number // 7) % 7]
    slant = 0.7 if ahead == "motorcyclist" else AWAY
    yield Mover(makers[ahead](), own, slant, float(rng.uniform(8, 20)), float(rng.uniform(-2.5, 2.5)), 42.0, 11.0)
    for lane in range(lanes):  # beside us
        x = inner + LANE * (lane + 0.5)
        if x != own:
            for i, kind in enumerate(rng.permutation(["car", "car", "truck", "car"])):
                slant = 0.6 if kind == "motorcyclist" else AWAY
                yield Mover(makers[str(kind)](), x, slant, 17.0 * i + 4, float(rng.uniform(0.5, 3)), 68.0, 10.0)
    x = inner + LANE * lanes + 0.1
    for i, kind in enumerate(("cyclist", "motorcyclist", "cyclist")):  # at the right edge
        slant = float(rng.choice((-1.0, 1.0)) * rng.uniform(0.5, 0.95))
        yield Mover(makers[kind](), x, slant, 3.0 + 11 * i + float(rng.uniform(0, 6)), float(rng.uniform(1, 5)), 36.0)
    for i in range(2):
        heading, start = (AWAY if tram_x > 0 else TOWARD), 40.0 * i + float(rng.uniform(0, 8))
        yield Mover(vehicles.tram(rng), tram_x, heading, start, step + float(rng.uniform(-3, 4)), 80.0, 24.0)

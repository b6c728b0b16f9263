"""One drive's town and traffic, planned once; every frame looks at it from a few metres further on.

x runs right from the road's middle, z ahead from the first frame's camera, metres; traffic keeps right.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from roadseg.scenes.streets import people, roadside, vehicles
from roadseg.scenes.streets.brush import FAR
from roadseg.scenes.streets.model import Model
from roadseg.scenes.streets.mood import MOODS, palette
from roadseg.scenes.streets.traffic import AWAY, LANE, TOWARD, Item, plan

PARKING, CURB, CROSSING = 2.2, 0.25, 11.0


@dataclass(frozen=True)
class Block:
    """A plot along one side: what stands on it, the furthest from the street first."""

    start: float
    stop: float
    kind: str
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Side:
    """The strips of one side, as distances from the road's middle."""

    sign: float
    """-1 left, 1 right."""
    parking: bool
    curb: float
    verge: float
    """Where the sidewalk begins, behind a strip of grass if beyond `curb`."""
    walk: float
    """Where the sidewalk ends."""
    edge: float
    """Where the plots begin, behind the tram's track if beyond `walk`."""
    blocks: tuple[Block, ...]


class Drive:
    """The plan of a drive, drawn from `rng` alone; `number` is its place in the split, which deals mood and traffic."""

    def __init__(self, rng: np.random.Generator, number: int, frames: int) -> None:
        self.rng, self.number = rng, number
        self.mood = list(MOODS.values())[number % len(MOODS)]
        self.colours = palette(rng)
        self.step = float(rng.uniform(5.5, 8.5))
        self.length = self.step * frames + FAR
        self.bend = float(rng.uniform(-0.0018, 0.0018))
        self.sun = (float(rng.choice((-1.0, 1.0)) * rng.uniform(0.4, 0.8)), 0.6, float(rng.uniform(-0.5, 0.2)))
        self.camera_height, self.horizon = float(rng.uniform(1.35, 2.0)), float(rng.uniform(0.4, 0.47))
        self.bonnet = bool(rng.random() < 0.5)
        self.lanes = 1 + int(rng.random() < 0.3)
        self.median = number % 3 == 1  # the tram runs in the road's middle, else beside the sidewalk
        self.inner = 1.75 if self.median else 0.0
        self.lane = self.inner + LANE * (0.5 + float(rng.integers(self.lanes)))
        first = float(rng.uniform(24, 44))
        self.crossings = tuple(np.arange(first, self.length + 60, float(rng.uniform(56, 74))).tolist())
        self.skyline = rng.random(64)
        self.texture = rng.standard_normal((256, 256)).astype(np.float32)
        self.stock = self._stock()
        track = 0.0 if self.median else float(rng.choice((-1.0, 1.0)))
        self.sides = tuple(self._side(sign, track == sign) for sign in (-1.0, 1.0))
        self.fixed = tuple(self._street())
        tram_x = track * (self.sides[track > 0].walk + 2.1)
        self.movers = tuple(plan(rng, number, self.step, (self.lanes, self.inner, self.lane), tram_x))

    def _stock(self) -> dict[str, list[Model]]:
        """What occurs often: a few of each, used again and again."""
        rng, colours = self.rng, self.colours
        makers: dict[str, tuple[int, Callable[[], Model]]] = {
            "walker": (24, lambda: people.walker(rng)),
            "bicycle": (4, lambda: people.bicycle(rng)),
            "motorcycle": (4, lambda: people.motorcycle(rng)),
            "car": (14, lambda: vehicles.car(rng)[0][0]),
            "tree": (7, lambda: roadside.tree(rng, colours)),
            "young tree": (4, lambda: roadside.tree(rng, colours, float(rng.uniform(5, 7)))),
            "bush": (3, lambda: roadside.bush(rng, colours)),
            "sign": (8, lambda: roadside.sign(rng, colours)),
            "bin": (2, lambda: roadside.bin_(rng)),
        }
        return {kind: [make() for _ in range(count)] for kind, (count, make) in makers.items()}

    def _one(self, kind: str) -> Model:
        return self.stock[kind][int(self.rng.integers(len(self.stock[kind])))]

    def frame_items(self, frame: int) -> list[Item]:
        """All things of the street in a frame, z from its camera, in painting order; the plots come before them."""
        shift = self.step * frame
        near = [
            Item(i.model, i.x, i.z - shift, i.heading, i.strip)
            for i in self.fixed
            if (-3 if abs(i.x - self.lane) > 3 else 8) < i.z - shift < FAR
        ]  # nobody walks into the car
        near += [item for mover in self.movers for item in mover.items(frame) if -3 < item.z < FAR]
        return sorted(near, key=lambda item: (-abs(item.strip - self.lane), -item.z))

    def _side(self, sign: float, track: bool) -> Side:
        rng = self.rng
        parking = bool(rng.random() < 0.3)
        curb = self.inner + LANE * self.lanes + PARKING * parking + 0.5
        verge = curb + (float(rng.uniform(1.2, 2.6)) if rng.random() < 0.5 else CURB)
        walk = verge + float(rng.uniform(2.6, 4.6))
        edge = walk + (4.2 if track else 0.0)
        return Side(sign, parking, curb, verge, walk, edge, tuple(self._blocks(sign, edge)))

    def _blocks(self, sign: float, edge: float) -> Iterator[Block]:
        """Plots from behind the camera to the end, all kinds in every stretch of about 80 m, gaps at the crossings."""
        rng, z, deck = self.rng, -30.0, list[str]()
        gaps = [(gap, gap + CROSSING) for gap in self.crossings]
        while z < self.length + 20:
            if not deck:
                deck = ["house", "wall", "fence", "park", "wall", "house", "fence"]
                rng.shuffle(deck)
            stop = z + float(rng.uniform(9, 19))
            for start, end in gaps:
                if z < end and stop > start - 7:
                    stop = start if z < start else end
                    break
            if any(start <= z < end for start, end in gaps):
                yield Block(z, stop, "gap", ())
            else:
                kind = deck.pop()
                yield Block(z, stop, kind, tuple(self._plot(kind, sign, edge, z, stop)))
            z = stop

    def _plot(self, kind: str, sign: float, edge: float, start: float, stop: float) -> Iterator[Item]:
        rng, colours, left, length = self.rng, self.colours, sign < 0, stop - start
        if kind == "house":
            yield Item(roadside.house(rng, colours, length, left), sign * edge, start, AWAY, sign * edge)
            return
        if rng.random() < 0.7:  # what is behind the garden
            model = roadside.house(rng, colours, length, left, None if kind == "wall" else 7.3)
            yield Item(model, sign * (edge + float(rng.uniform(9, 14))), start, AWAY, sign * edge)
        count = {"park": 5, "wall": 3, "fence": 3}[kind]
        for z in sorted(rng.uniform(start + 1, stop - 0.5, count).tolist(), reverse=True):
            x = sign * (edge + float(rng.uniform(2.5, 8.0)))
            model = self._one("bush" if rng.random() < 0.35 else "tree")
            yield Item(model, x, z, AWAY, sign * edge)
        if kind == "wall":
            yield Item(roadside.wall(rng, colours, length, left), sign * edge, start, AWAY, sign * edge)
        elif kind == "fence":
            yield Item(roadside.fence(rng, colours, length, left), sign * edge, start, AWAY, sign * edge)

    def _spots(self, every: tuple[float, float], start: float = 2.0) -> Iterator[float]:
        z = start + float(self.rng.uniform(0, every[0]))
        while z < self.length:
            yield z
            z += float(self.rng.uniform(*every))

    def _at_crossing(self, z: float, margin: float = 1.0) -> bool:
        return any(start - margin < z < start + CROSSING + margin for start in self.crossings)

    def _street(self) -> Iterator[Item]:
        """What stands on the street and its sidewalks."""
        for side in self.sides:
            yield from self._furniture(side)
            yield from self._walkers(side)
            if side.parking:
                yield from self._parked(side)
        rng = self.rng
        for count, start in enumerate(self.crossings):
            for side in self.sides:
                arm = -side.sign * float(rng.uniform(2.5, 4.5)) if rng.random() < 0.6 else 0.0
                x = side.sign * (side.curb + 0.5)
                yield Item(roadside.traffic_light(rng, self.colours, arm), x, start - 3.5, AWAY, x)
            for _ in range(int(rng.integers(1, 4))):  # on the zebra
                x = float(rng.uniform(-1, 1)) * (self.sides[0].curb - 1)
                yield Item(self._one("walker"), x, start - float(rng.uniform(0.6, 2.2)), AWAY, x)
            waiting = (vehicles.truck, vehicles.car, vehicles.bus)[(count + self.number) % 3](rng)
            side = self.sides[int(rng.integers(2))]
            x = side.sign * (side.curb + 6.5 + float(rng.uniform(0, 9)))  # in the side street, seen from its flank
            for model, ahead in waiting:
                yield Item(model, x + ahead, start + 4.0, np.pi / 2, x)

    def _furniture(self, side: Side) -> Iterator[Item]:
        rng, sign = self.rng, side.sign
        x = sign * (side.curb + 0.45)
        makers: list[tuple[tuple[float, float], float, Callable[[], Model]]] = [
            ((20, 27), side.curb + 0.45, lambda: roadside.lamp(self.colours, -sign * 1.9)),
            ((13, 22), side.curb + 0.55, lambda: self._one("sign")),
            ((17, 30), side.walk - 0.4, lambda: self._one("bin")),
        ]
        if side.verge - side.curb > 1:
            makers.append(((9, 15), (side.curb + side.verge) / 2, lambda: self._one("young tree")))
        for every, distance, make in makers:
            for z in self._spots(every):
                if not self._at_crossing(z, 2):
                    yield Item(make(), sign * distance, z, AWAY, sign * distance)
        x = sign * (side.verge + 0.7)
        for z in self._spots((14, 26)):
            if not self._at_crossing(z):
                model = self._one("bicycle" if rng.random() < 0.6 else "motorcycle")
                yield Item(model, x, z, float(rng.uniform(0.7, 2.4)), x)

    def _walkers(self, side: Side) -> Iterator[Item]:
        rng, sign = self.rng, side.sign
        for z in self._spots((5, 14)):
            x = sign * float(rng.uniform(side.verge + 0.5, side.walk - 0.4))
            for i in range(1 + int(rng.random() < 0.3)):
                yield Item(self._one("walker"), x + 0.6 * i, z, AWAY, sign * side.verge)

    def _parked(self, side: Side) -> Iterator[Item]:
        rng, x = self.rng, side.sign * (side.curb - PARKING / 2)
        z = float(rng.uniform(0, 6))
        while z < self.length:
            choice = rng.random()
            if self._at_crossing(z, 6) or choice < 0.25:
                z += 5.6
                continue
            heading = AWAY if side.sign > 0 else TOWARD
            if choice < 0.35:
                yield Item(self._one("motorcycle"), x + 0.3, z, float(rng.uniform(0.6, 1.2)), x)
                z += 3.0
            elif choice < 0.38:
                for model, ahead in vehicles.truck(rng):
                    yield Item(model, x, z + 3 + ahead * np.cos(heading), heading, x)
                z += 10.5
            else:
                yield Item(self._one("car"), x + float(rng.uniform(-0.15, 0.15)), z, heading, x)
                z += float(rng.uniform(5.4, 7.5))

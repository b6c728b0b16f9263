"""Cars, vans, buses, trucks and trams: profiles swept to solids, with glass, wheels and lamps on their faces.

A vehicle is a list of (model, offset ahead in metres), since long ones are drawn in pieces, far to near.
"""

import numpy as np

from roadseg.scenes.streets.model import (
    BUS,
    CAR,
    TRAIN,
    TRUCK,
    Colour,
    Flat,
    Model,
    Part,
    disc,
    front,
    grid,
    mix,
    prism,
    rect,
    side,
    tone,
)  # fmt: skip
from roadseg.scenes.streets.mood import PAINTS, pick

Vehicle = list[tuple[Model, float]]

GLASS: Colour = (46, 56, 66)
TYRE: Colour = (26, 26, 28)
RED: Colour = (206, 30, 26)
LAMP: Colour = (255, 246, 214)
WHITE: Colour = (236, 236, 232)

# Rear bottom first, over the roof, to the front; "g" marks the faces that are glass.
CARS: dict[str, tuple[Flat, str, float]] = {
    "hatchback": (
        [(-1.95, 0.28), (-2.0, 0.92), (-1.6, 1.44), (0.2, 1.47), (1.0, 0.96), (1.9, 0.8), (2.0, 0.3)],
        "pgpgpp",
        1.76,
    ),
    "saloon": (
        [(-2.3, 0.3), (-2.3, 0.92), (-1.6, 0.97), (-1.05, 1.42), (0.25, 1.44), (1.1, 0.94), (2.15, 0.78), (2.3, 0.3)],
        "ppgpgpp",
        1.8,
    ),
    "estate": (
        [(-2.3, 0.3), (-2.32, 0.95), (-2.0, 1.46), (0.3, 1.48), (1.15, 0.95), (2.15, 0.8), (2.3, 0.3)],
        "pgpgpp",
        1.8,
    ),
    "offroad": (
        [(-2.2, 0.4), (-2.25, 1.08), (-2.05, 1.72), (0.35, 1.75), (1.05, 1.14), (2.1, 1.02), (2.2, 0.4)],
        "pgpgpp",
        1.9,
    ),
    "van": (
        [(-2.5, 0.35), (-2.5, 1.2), (-2.4, 2.05), (1.2, 2.08), (2.0, 1.18), (2.45, 0.95), (2.5, 0.35)],
        "pgpgpp",
        1.95,
    ),
}


def _mirrored(shape: Flat, half: float, paint: Colour, label: int | None = None, glow: bool = False) -> list[Part]:
    """A detail on both flanks."""
    return [Part(side(shape, sign * half), paint, label, (sign, 0.0, 0.0), glow) for sign in (-1.0, 1.0)]


def _wheels(forwards: tuple[float, ...], radius: float, half: float, label: int) -> list[Part]:
    parts = []
    for forward in forwards:
        parts += _mirrored(disc(forward, radius, radius), half, TYRE, label)
        parts += _mirrored(disc(forward, radius, radius * 0.55, corners=10), half, (150, 152, 156))
    return parts


def _under(half: float, radius: float, forward: float, label: int) -> Part:
    """Tyres and the dark below the body, seen along the road; drawn first, under everything."""
    boxes = [
        (-half, -half + 0.24, 0.0, radius * 1.3),
        (half - 0.24, half, 0.0, radius * 1.3),
        (-half + 0.24, half - 0.24, radius * 0.55, radius * 1.3),
    ]
    return Part(grid(boxes, forward, along=False), (30, 30, 32), label)


def _pair(half: float, width: float, low: float, high: float, at: float, paint: Colour, rear: bool) -> Part:
    """Two lamps on the rear or front face."""
    boxes = [(-half, -half + width, low, high), (half - width, half, low, high)]
    return Part(grid(boxes, at, along=False), paint, None, (0.0, 0.0, -1.0 if rear else 1.0), glow=True)


def car(rng: np.random.Generator) -> Vehicle:
    shape, faces, width = CARS[list(CARS)[int(rng.integers(len(CARS)))]]
    paint, half = pick(rng, PAINTS), width / 2
    profile = list(shape)
    rear, nose = profile[1][0], profile[-1][0]
    colours = [mix(GLASS, (190, 205, 220), 0.12) if face == "g" else paint for face in faces]
    roof = [p for p in profile if p[1] > 1.3]
    belt = profile[1][1] + 0.04
    tail = max(rear + 0.25, roof[0][0] - 0.3)
    window = [
        (tail, belt),
        (profile[-3][0] - 0.15, belt),
        (roof[1][0] - 0.08, roof[1][1] - 0.1),
        (roof[0][0] + 0.08, roof[0][1] - 0.1),
    ]
    middle = (roof[0][0] + roof[1][0]) / 2 + 0.15
    parts = [_under(half - 0.05, 0.33, rear + 0.1, CAR), _under(half - 0.05, 0.33, nose - 0.1, CAR)]
    parts += prism(profile, width, colours, tone(paint, 0.96), CAR)
    parts += _mirrored(window, half, GLASS)
    parts += _mirrored(rect(middle, middle + 0.1, belt, roof[0][1] - 0.06), half, tone(paint, 0.9))
    parts += _mirrored(rect(rear + 0.1, nose - 0.1, 0.34, 0.4), half, tone(paint, 0.6))
    parts += _wheels((rear * 0.63, nose * 0.63), 0.34, half, CAR)
    lamp = profile[1][1]
    parts += [
        _pair(half - 0.04, 0.34, lamp - 0.22, lamp - 0.03, rear - 0.01, RED, rear=True),
        Part(front(rect(-0.26, 0.26, 0.5, 0.62), rear - 0.01), WHITE, None, (0.0, 0.0, -1.0)),
        Part(front(rect(-half + 0.05, half - 0.05, 0.3, 0.42), rear - 0.01), tone(paint, 0.5), None, (0.0, 0.0, -1.0)),
        _pair(half - 0.06, 0.36, 0.58, 0.76, nose + 0.01, LAMP, rear=False),
        Part(front(rect(-0.5, 0.5, 0.4, 0.6), nose + 0.01), (34, 34, 36), None, (0.0, 0.0, 1.0)),
        Part(front(rect(-0.26, 0.26, 0.42, 0.53), nose + 0.02), WHITE, None, (0.0, 0.0, 1.0)),
    ]  # fmt: skip
    return [(Model(parts, half, 2.2, 1.5), 0.0)]


def bus(rng: np.random.Generator) -> Vehicle:
    paint, stripe = pick(rng, PAINTS), pick(rng, PAINTS)
    half, tall = 1.25, 3.05
    profile = [(-5.5, 0.32), (-5.5, tall - 0.1), (-5.35, tall), (5.3, tall), (5.5, 2.6), (5.55, 0.32)]
    parts = [_under(half - 0.08, 0.45, -5.4, BUS), _under(half - 0.08, 0.45, 5.4, BUS)]
    parts += prism(profile, 2 * half, [paint, paint, tone(paint, 0.9), paint, paint], paint, BUS)
    parts += _mirrored(rect(-5.5, 5.5, 0.35, 0.75), half, stripe)
    panes = [(f, f + 1.18, 1.35, 2.5) for f in np.arange(-5.2, 4.4, 1.36).tolist()]
    parts += [Part(grid(panes, s * half, along=True), GLASS, None, (s, 0.0, 0.0)) for s in (-1.0, 1.0)]
    doors = [(f, f + 0.55, 0.45, 2.45) for f in (4.0, 4.6, -0.6, 0.0)]
    parts.append(Part(grid(doors, half, along=True), mix(GLASS, paint, 0.15), None, (1.0, 0.0, 0.0)))
    parts += _wheels((-3.2, 3.0), 0.48, half, BUS)
    back, ahead = (0.0, 0.0, -1.0), (0.0, 0.0, 1.0)
    parts += [
        Part(front(rect(-1.0, 1.0, 1.75, 2.55), -5.51), GLASS, None, back),
        Part(front(rect(-0.45, 0.45, 2.65, 2.9), -5.51), (255, 170, 40), None, back, glow=True),
        Part(front(rect(-0.9, 0.9, 0.7, 1.35), -5.51), tone(paint, 0.55), None, back),
        _pair(half - 0.06, 0.2, 0.7, 1.4, -5.51, RED, rear=True),
        Part(front(rect(-1.15, 1.15, 1.15, 2.45), 5.56), GLASS, None, ahead),
        Part(front(rect(-0.9, 0.9, 2.55, 2.9), 5.53), (255, 170, 40), None, ahead, glow=True),
        Part(front(rect(-half, half, 0.35, 0.6), 5.56), stripe, None, ahead),
        _pair(half - 0.1, 0.4, 0.65, 0.9, 5.57, LAMP, rear=False),
    ]  # fmt: skip
    return [(Model(parts, half, 5.5, tall), 0.0)]


def truck(rng: np.random.Generator) -> Vehicle:
    """A cab and a cargo body: a closed box, or an open tipper loaded with gravel."""
    paint, cargo, half = pick(rng, PAINTS), pick(rng, PAINTS), 1.22
    tipper = bool(rng.random() < 0.4)
    top = 2.5 if tipper else 3.5
    nose = [(-0.95, 0.5), (-0.95, 2.65), (-0.8, 2.75), (0.55, 2.75), (0.95, 1.6), (1.0, 0.5)]
    ahead, back = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
    cab = [_under(half - 0.05, 0.5, 0.9, TRUCK), *prism(nose, 2.3, [paint, paint, paint, GLASS, paint], paint, TRUCK)]
    cab += _mirrored([(-0.3, 1.6), (0.85, 1.6), (0.5, 2.5), (-0.3, 2.5)], 1.15, GLASS)
    cab += _wheels((0.1,), 0.5, 1.16, TRUCK)
    cab += [
        Part(front(rect(-0.8, 0.8, 0.85, 1.35), 1.0), tone(paint, 0.5), None, ahead),
        _pair(1.05, 0.35, 0.6, 0.82, 1.01, LAMP, rear=False),
    ]
    body = [(-2.9, 0.95), (-2.9, top), (2.9, top), (2.9, 0.95)]
    load = [_under(half - 0.02, 0.5, -2.75, TRUCK), *prism(body, 2 * half, [cargo] * 3, tone(cargo, 0.97), TRUCK)]
    load += _mirrored(rect(-2.9, 2.9, 0.72, 0.97), half - 0.05, (44, 44, 48), TRUCK)
    if tipper:
        ribs = [(f, f + 0.14, 1.0, top) for f in np.arange(-2.8, 2.8, 0.7).tolist()]
        load += [Part(grid(ribs, s * half, along=True), tone(cargo, 0.75), None, (s, 0.0, 0.0)) for s in (-1.0, 1.0)]
        load.append(Part(front([(-1.1, top), (1.1, top), (0.5, top + 0.5), (-0.2, top + 0.62)]), (128, 116, 98), TRUCK))
        load.append(
            Part(
                grid([(a, a + 0.1, 1.0, top) for a in (-0.8, -0.05, 0.7)], -2.91, along=False),
                tone(cargo, 0.75),
                None,
                back,
            )
        )
    else:
        seams = [(-0.03, 0.03, 1.0, top), (-0.45, -0.4, 1.1, top - 0.1), (0.4, 0.45, 1.1, top - 0.1)]
        load.append(Part(grid(seams, -2.91, along=False), tone(cargo, 0.55), None, back))
        load += _mirrored(rect(-2.0, 1.6, 1.7, 2.6), half, pick(rng, PAINTS))
    load += _wheels((-1.9, -0.8), 0.5, half, TRUCK)
    load += [
        Part(front(rect(-half, half, 0.62, 0.95), -2.91), (46, 46, 50), TRUCK, back),
        _pair(half - 0.08, 0.4, 0.68, 0.88, -2.92, RED, rear=True),
    ]
    return [(Model(cab, 1.15, 0.95, 2.75), 3.95), (Model(load, half, 2.9, top), 0.0)]


def _carriage(paint: Colour, stripe: Colour, nose: float, reach: float) -> Model:
    """A piece of a tram; `nose` is how far its end slopes (0 = flat), at the front."""
    half, tall, length = 1.25, 3.35, 3.9
    slope = [(length, tall), (length + nose * 0.35, 2.3), (length + nose, 1.0), (length + nose, 0.25)]
    profile = [(-length, 0.25), (-length, tall), *slope]
    parts = [_under(half, 0.2, -length + 0.05, TRAIN)]
    parts += prism(profile, 2 * half, [paint, tone(paint, 0.85), GLASS if nose else paint, paint, paint], paint, TRAIN)
    parts += _mirrored(rect(-length, length, 0.1, 0.34), half - 0.02, (52, 52, 56), TRAIN)
    parts += _mirrored(rect(-length, length + nose, 0.5, 0.85), half, stripe)
    parts += _mirrored(rect(-length, length, 1.45, 2.6), half, GLASS)
    posts = [(f, f + 0.1, 1.45, 2.6) for f in (-2.6, -1.3, 0.0, 1.3, 2.6)]
    doors = [(f, f + 1.2, 0.45, 2.65) for f in (-2.4, 1.5)]
    for s in (-1.0, 1.0):
        parts.append(Part(grid(posts, s * half, along=True), mix(GLASS, paint, 0.5), None, (s, 0.0, 0.0)))
        parts.append(Part(grid(doors, s * half, along=True), tone(stripe, 0.85), None, (s, 0.0, 0.0)))
        parts.append(
            Part(
                grid([(f, f + 0.9, 1.2, 2.5) for f in (-2.25, 1.65)], s * half, along=True), GLASS, None, (s, 0.0, 0.0)
            )
        )
    parts.append(Part(grid([(-2.5, 1.5, tall, tall + 0.35)], 0.0, along=True), (132, 134, 138), TRAIN))
    if nose:
        end = length + nose + 0.01
        parts += [
            Part(front(rect(-1.05, 1.05, 1.05, 2.3), length + nose * 0.36), GLASS, None, (0.0, 0.3, 1.0)),
            Part(front(rect(-half, half, 0.5, 0.8), end), stripe, None, (0.0, 0.0, 1.0)),
            Part(front(rect(-0.55, 0.55, 2.55, 2.9), length + 0.3), (255, 170, 40), None, (0.0, 0.3, 1.0), True),
            _pair(half - 0.15, 0.3, 0.85, 1.1, end, LAMP, rear=False),
            Part(front(disc(0.0, 3.12, 0.13), length + 0.1), LAMP, None, (0.0, 0.0, 1.0), True),
        ]
    if reach:
        arm = [
            (0.0, tall + 0.3),
            (0.12, tall + 0.3),
            (0.8, tall + 0.95),
            (0.1, tall + reach),
            (0.0, tall + reach),
            (0.66, tall + 0.95),
        ]
        parts.append(Part(side(arm), (44, 46, 50), TRAIN))
        parts.append(Part(front(rect(-0.8, 0.8, tall + reach, tall + reach + 0.08)), (44, 46, 50), TRAIN))
    return Model(parts, half, length + nose, tall)


def tram(rng: np.random.Generator) -> Vehicle:
    """Three carriages with bellows between them, a nose at either end and a pantograph."""
    paint, stripe = pick(rng, PAINTS), pick(rng, PAINTS)
    head, middle = _carriage(paint, stripe, 0.9, 0.0), _carriage(paint, stripe, 0.0, 1.5)
    tail = Model([_turned(part) for part in _carriage(paint, RED, 0.9, 0.0).parts], 1.25, 4.8, 3.35)
    bellows = Model([*prism([(-0.3, 0.4), (-0.3, 3.2), (0.3, 3.2), (0.3, 0.4)], 2.3, [(40, 40, 44)] * 3, (40, 40, 44),
                            TRAIN)], 1.15, 0.3, 3.2)  # fmt: skip
    return [(head, 8.4), (bellows, 4.2), (middle, 0.0), (bellows, -4.2), (tail, -8.4)]


def _turned(part: Part) -> Part:
    """The part as it is when its model faces the other way."""
    normal = None if part.normal is None else (-part.normal[0], part.normal[1], -part.normal[2])
    return Part(part.polygons * (-1.0, 1.0, -1.0), part.colour, part.label, normal, part.glow)

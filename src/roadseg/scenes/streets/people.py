"""Walkers, bicycles, motorcycles and who rides them: flat cut-outs.

A walker is cut out across the street (right, up); a two-wheeler along its heading (forward, up), so it is placed at a
slant to be seen.
"""

import numpy as np

from roadseg.scenes.streets.model import (
    BICYCLE,
    MOTORCYCLE,
    PERSON,
    RIDER,
    Colour,
    Model,
    Part,
    disc,
    front,
    side,
    stroke,
    tone,
)  # fmt: skip
from roadseg.scenes.streets.mood import PAINTS, SKINS, pick

TYRE: Colour = (30, 30, 32)
HAIR: tuple[Colour, ...] = ((38, 30, 26), (84, 60, 40), (150, 118, 70), (120, 118, 116))


def walker(rng: np.random.Generator) -> Model:
    """Someone on foot, 1.2-1.9 m tall."""
    tall = float(rng.uniform(1.55, 1.92)) if rng.random() < 0.88 else float(rng.uniform(1.15, 1.4))
    s = tall / 1.75
    coat, trousers, skin, hair = pick(rng, PAINTS), pick(rng, PAINTS), pick(rng, SKINS), pick(rng, HAIR)
    step, swing = float(rng.uniform(0.04, 0.3)), float(rng.uniform(0.02, 0.26))
    parts = [
        Part(front(stroke(-0.07, 0.88, -0.08 - step, 0.05, 0.2, 0.13)), tone(trousers, 0.85), PERSON),
        Part(front(stroke(0.07, 0.88, 0.08 + step, 0.05, 0.2, 0.13)), trousers, PERSON),
        Part(front(disc(-0.05 - step, 0.05, 0.06, 1.9, 8)), (36, 32, 30), PERSON),
        Part(front(disc(0.12 + step, 0.05, 0.06, 1.9, 8)), (36, 32, 30), PERSON),
        Part(front(stroke(-0.2, 1.4, -0.24 - swing, 0.88, 0.12, 0.09)), tone(coat, 0.8), PERSON),
        Part(front([(-0.16, 0.8), (0.17, 0.8), (0.24, 1.4), (0.12, 1.5), (-0.12, 1.5), (-0.24, 1.4)]), coat, PERSON),
        Part(front(stroke(0.2, 1.4, 0.25 + swing, 0.88, 0.12, 0.09)), tone(coat, 0.9), PERSON),
        Part(front(disc(0.26 + swing, 0.86, 0.05, corners=6)), skin, PERSON),
        Part(front(disc(0.0, 1.61, 0.15, 0.82, 12)), skin, PERSON),
        Part(front([(-0.125, 1.62), (-0.1, 1.73), (0.0, 1.78), (0.1, 1.73), (0.125, 1.62), (0.0, 1.7)]), hair, PERSON),
    ]  # fmt: skip
    if rng.random() < 0.35:  # a long coat or skirt
        parts.insert(5, Part(front([(-0.18, 0.95), (0.18, 0.95), (0.27, 0.5), (-0.27, 0.5)]), tone(coat, 0.88), PERSON))
    if rng.random() < 0.35:  # a bag
        bag = [(0.22, 0.55), (0.42, 0.55), (0.42, 0.86), (0.22, 0.86)]
        parts.append(Part(front(bag), pick(rng, PAINTS), PERSON))
    return Model([Part(part.polygons * s, part.colour, part.label) for part in parts], 0.35 * s, 0.15, tall)


def _rider(
    rng: np.random.Generator,
    hip: tuple[float, float],
    hand: tuple[float, float],
    foot: tuple[float, float],
    helmet: bool,
) -> list[Part]:
    """Who sits with the hip, hand and foot there (forward, up)."""
    coat, trousers, skin = pick(rng, PAINTS), pick(rng, PAINTS), pick(rng, SKINS)
    neck = (hip[0] + 0.32, hip[1] + 0.56)
    knee = ((hip[0] + foot[0]) / 2 + 0.3, (hip[1] + foot[1]) / 2 + 0.1)
    head = (neck[0] + 0.07, neck[1] + 0.2)
    cap = pick(rng, PAINTS) if helmet or rng.random() < 0.5 else pick(rng, HAIR)
    parts = [
        Part(side(stroke(*hip, *knee, 0.24, 0.18)), trousers, RIDER),
        Part(side(stroke(*knee, *foot, 0.18, 0.13)), tone(trousers, 0.85), RIDER),
        Part(side(disc(foot[0] + 0.05, foot[1], 0.08, 1.5, 8)), (34, 32, 30), RIDER),
        Part(side(stroke(hip[0] - 0.02, hip[1] - 0.06, *neck, 0.34, 0.4)), coat, RIDER),
        Part(side(stroke(neck[0], neck[1] - 0.06, *hand, 0.15, 0.1)), tone(coat, 0.82), RIDER),
        Part(side(disc(*head, 0.16, 0.9, 12)), skin, RIDER),
    ]
    radius = 0.2 if helmet else 0.17
    brim = head[1] + (-0.06 if helmet else 0.03)
    crown = [(x, y) for x, y in disc(head[0] - 0.02, head[1] + 0.02, radius) if y > brim]
    parts.append(Part(side(crown), cap, RIDER))
    return parts


def _bicycle(rng: np.random.Generator) -> list[Part]:
    frame = pick(rng, PAINTS)
    rear, fore, radius = (-0.54, 0.36), (0.54, 0.36), 0.36
    parts = []
    for wheel in (rear, fore):
        parts.append(Part(side(disc(*wheel, radius)), None, BICYCLE))
        # a ring: the inner circle cuts the outer one out (even-odd filling)
        ring = np.concatenate([side(disc(*wheel, radius)), side(disc(*wheel, radius - 0.075))])
        parts.append(Part(ring, TYRE, None))
    crank, seat, bar = (-0.05, 0.36), (-0.2, 0.88), (0.4, 0.92)
    tubes = [
        (rear, crank),
        (rear, (seat[0] + 0.02, 0.78)),
        (crank, seat),
        (crank, (0.38, 0.78)),
        ((seat[0] + 0.02, 0.78), (0.38, 0.8)),
        (fore, bar),
    ]
    parts += [Part(side(stroke(*a, *b, 0.08)), frame, BICYCLE) for a, b in tubes]
    parts.append(Part(side(stroke(bar[0], bar[1], bar[0] + 0.12, bar[1] + 0.1, 0.07)), TYRE, BICYCLE))
    parts.append(Part(side(stroke(seat[0] - 0.14, 0.92, seat[0] + 0.12, 0.9, 0.1)), TYRE, BICYCLE))
    return parts


def bicycle(rng: np.random.Generator) -> Model:
    """A parked one."""
    return Model(_bicycle(rng), 0.1, 0.85, 1.0)


def cyclist(rng: np.random.Generator) -> Model:
    """A bicycle with its rider."""
    low = float(rng.uniform(0.18, 0.5))
    return Model(_bicycle(rng) + _rider(rng, (-0.2, 0.98), (0.46, 1.04), (0.0, low), helmet=False), 0.25, 0.85, 1.8)


def _motorcycle(rng: np.random.Generator) -> list[Part]:
    paint = pick(rng, PAINTS)
    rear, fore = (-0.68, 0.33), (0.72, 0.33)
    parts = []
    for wheel in (rear, fore):
        parts.append(Part(side(disc(*wheel, 0.34)), TYRE, MOTORCYCLE))
        parts.append(Part(side(disc(*wheel, 0.15, corners=10)), (120, 122, 126)))
    body = [(-0.5, 0.3), (0.4, 0.28), (0.5, 0.6), (0.3, 0.75), (-0.5, 0.62)]
    parts += [
        Part(side(body), (62, 64, 68), MOTORCYCLE),
        Part(side(disc(-0.02, 0.42, 0.2, 1.3, 10)), (132, 134, 138), MOTORCYCLE),
        Part(side(stroke(*fore, 0.46, 0.98, 0.11)), (140, 142, 146), MOTORCYCLE),
        Part(side([(-0.12, 0.68), (0.46, 0.7), (0.44, 0.98), (0.02, 0.94)]), paint, MOTORCYCLE),
        Part(side([(-1.02, 0.72), (-0.2, 0.66), (-0.02, 0.84), (-0.5, 0.84), (-1.0, 0.9)]), TYRE, MOTORCYCLE),
        Part(side([(-1.06, 0.62), (-0.5, 0.6), (-0.4, 0.72), (-1.04, 0.8)]), paint, MOTORCYCLE),
        Part(side([(0.42, 0.7), (0.72, 0.78), (0.64, 1.22), (0.42, 1.04)]), paint, MOTORCYCLE),
        Part(side(stroke(-0.9, 0.26, 0.2, 0.24, 0.1)), (150, 150, 154), MOTORCYCLE),
        Part(side(disc(0.7, 0.88, 0.1, corners=8)), (255, 246, 214), None, None, True),
        Part(side(disc(-1.05, 0.78, 0.06, corners=8)), (206, 30, 26), None, None, True),
    ]  # fmt: skip
    return parts


def motorcycle(rng: np.random.Generator) -> Model:
    """A parked one."""
    return Model(_motorcycle(rng), 0.25, 1.05, 1.2)


def motorcyclist(rng: np.random.Generator) -> Model:
    """A motorcycle with its rider, helmeted."""
    rider = _rider(rng, (-0.32, 0.9), (0.44, 1.02), (-0.02, 0.32), helmet=True)
    return Model(_motorcycle(rng) + rider, 0.35, 1.05, 1.65)

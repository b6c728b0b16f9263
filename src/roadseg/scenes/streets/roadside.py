"""What lines a street: houses, walls, fences, trees, lamps, traffic lights and signs.

Houses, walls and fences stand on the right, facing left, and run ahead from their origin; `left=True` mirrors them.
"""

import math
from dataclasses import replace

import numpy as np

from roadseg.scenes.streets.model import (
    BUILDING,
    FENCE,
    LIGHT,
    POLE,
    SIGN,
    STATIC,
    VEGETATION,
    WALL,
    Colour,
    Model,
    Part,
    disc,
    front,
    grid,
    mix,
    rect,
    stroke,
    tone,
)  # fmt: skip
from roadseg.scenes.streets.mood import PAINTS, Palette, pick, vary

GLASS: Colour = (58, 68, 80)
LIT: Colour = (255, 206, 120)
RED: Colour = (200, 34, 32)
WHITE: Colour = (238, 238, 234)
Box = tuple[float, float, float, float]


def _facing(parts: list[Part], left: bool) -> list[Part]:
    if not left:
        return parts
    flip = np.array((-1.0, 1.0, 1.0))
    return [replace(p, polygons=p.polygons * flip, normal=p.normal and (-p.normal[0], *p.normal[1:])) for p in parts]


def _windows(rng: np.random.Generator, start: float, stop: float, tall: float, floor: float) -> list[Box]:
    """(left, right, low, high) of a facade's panes above the ground floor."""
    bays = max(1, int((stop - start) / rng.uniform(2.4, 3.4)))
    pitch, share = (stop - start) / bays, float(rng.uniform(0.42, 0.62))
    lows = np.arange(floor + 0.9, tall - 1.7, floor).tolist()
    return [
        (start + pitch * (i + 0.5 - share / 2), start + pitch * (i + 0.5 + share / 2), low, low + floor * 0.52)
        for low in lows
        for i in range(bays)
    ]


def house(rng: np.random.Generator, colours: Palette, length: float, left: bool, tall: float | None = None) -> Model:
    """A house of the given length along the street, 3-7 storeys unless `tall` is given, 14 m deep."""
    paint = vary(rng, colours.facades[int(rng.integers(len(colours.facades)))], 0.06)
    floor, trim, shop = 3.1, mix(paint, WHITE, 0.35), pick(rng, PAINTS)
    tall = float(rng.integers(3, 7)) * floor + 1.0 if tall is None else tall
    street, end = (-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)
    faces = [((0.0, length), True, street), ((0.0, 14.0), False, end)]
    parts = []
    for (start, stop), along, normal in faces:
        panes = _windows(rng, start, stop, tall, floor)
        lit = [pane for pane in panes if rng.random() < 0.3]
        frames = [(a - 0.14, b + 0.14, c - 0.16, d + 0.12) for a, b, c, d in panes]
        ledges = [(start, stop, tall - 0.45, tall), (start, stop, floor - 0.1, floor + 0.22)]
        parts.append(Part(grid([(start, stop, 0.0, tall)], 0.0, along), paint, BUILDING, normal))
        parts.append(Part(grid([(start, stop, 0.0, 0.7)], 0.0, along), tone(paint, 0.72), None, normal))
        parts.append(Part(grid(ledges, 0.0, along), trim, None, normal))
        if panes:
            parts.append(Part(grid(frames, 0.0, along), trim, None, normal))
            parts.append(Part(grid(panes, 0.0, along), GLASS, None, normal))
        if lit:
            parts.append(Part(grid(lit, 0.0, along), LIT, None, normal, glow=True, night=True))
    if rng.random() < 0.6:  # shops
        fronts = [(a, min(a + 2.6, length - 0.3), 0.45, 2.5) for a in np.arange(0.5, length - 1.5, 3.4).tolist()]
        awnings = [(a - 0.1, b + 0.1, 2.45, 2.95) for a, b, _, _ in fronts]
        parts.append(Part(grid(fronts, 0.0, True), mix(GLASS, LIT, 0.15), None, street))
        parts.append(Part(grid(awnings, 0.0, True), shop, None, street))
    else:
        doors = [(a, a + 1.2, 0.0, 2.3) for a in np.arange(1.2, length - 2.0, 6.0).tolist()]
        if doors:
            parts.append(Part(grid(doors, 0.0, True), tone(shop, 0.7), None, street))
    roof = mix((112, 66, 54), (74, 74, 80), float(rng.random()))
    rise = float(rng.uniform(1.5, 3.2))
    slope = np.array([[(0.0, tall, 0.0), (0.0, tall, length), (2.5, tall + rise, length), (2.5, tall + rise, 0.0)]])
    parts.append(Part(slope, roof, BUILDING, (-0.8, 0.6, 0.0)))
    gable = np.array([[(0.0, tall, 0.0), (2.5, tall + rise, 0.0), (11.5, tall + rise, 0.0), (14.0, tall, 0.0)]])
    parts.append(Part(gable, tone(paint, 0.9), BUILDING, end))
    return Model(_facing(parts, left), 0.0, 0.0, tall)


def wall(rng: np.random.Generator, colours: Palette, length: float, left: bool) -> Model:
    """A garden or retaining wall, 2.0-3.4 m, in courses of stone under a coping."""
    paint = vary(rng, colours.facades[int(rng.integers(len(colours.facades)))], 0.06)
    tall = float(rng.uniform(2.0, 3.4))
    street, end = (-1.0, 0.0, 0.0), (0.0, 0.0, -1.0)
    parts = [
        Part(grid([(0.0, 0.4, 0.0, tall)], 0.0, False), paint, WALL, end),
        Part(grid([(0.0, length, 0.0, tall)], 0.0, True), paint, WALL, street),
    ]
    stones: list[Box] = []
    others: list[Box] = []
    for row, low in enumerate(np.arange(0.0, tall - 0.3, 0.42).tolist()):
        for a in np.arange(0.5 * (row % 2), length - 1.0, 1.05).tolist():
            (stones if rng.random() < 0.5 else others).append((a, a + 0.97, low, low + 0.36))
    parts.append(Part(grid(stones, 0.0, True), tone(paint, 0.86), None, street))
    parts.append(Part(grid(others, 0.0, True), tone(paint, 1.08), None, street))
    parts.append(Part(grid([(0.0, length, tall - 0.2, tall)], -0.05, True), mix(paint, WHITE, 0.25), WALL, street))
    return Model(_facing(parts, left), 0.0, 0.0, tall)


def fence(rng: np.random.Generator, colours: Palette, length: float, left: bool) -> Model:
    """Bars or pickets that are seen through; the label covers what is between them, as in Cityscapes."""
    tall = float(rng.uniform(1.5, 2.2))
    wood = bool(rng.random() < 0.5)
    paint = pick(rng, ((150, 124, 92), (116, 86, 62), (214, 210, 200))) if wood else colours.steel
    pitch, bar = (0.24, 0.13) if wood else (0.3, 0.07)
    bars = [(a, a + bar, 0.05, tall) for a in np.arange(0.0, length, pitch).tolist()]
    posts = [(a, a + 0.16, 0.0, tall + 0.12) for a in np.arange(0.0, length, 2.4).tolist()]
    rails = [(0.0, length, low, low + 0.1) for low in (0.25, tall - 0.25)]
    parts = [Part(grid([(0.0, length, 0.0, tall)], 0.0, True), None, FENCE),
             Part(grid(bars, 0.0, True), paint, None), Part(grid(rails, 0.0, True), tone(paint, 0.85), None),
             Part(grid(posts, 0.0, True), tone(paint, 0.8), FENCE)]  # fmt: skip
    return Model(_facing(parts, left), 0.0, 0.0, tall)


def _blob(rng: np.random.Generator, x: float, y: float, radius: float, corners: int = 11) -> np.ndarray:
    """A leafy clump, [1, corners, 3]."""
    turn = np.arange(corners) * (2 * math.pi / corners)
    reach = radius * rng.uniform(0.8, 1.12, corners)
    return np.stack([x + reach * np.cos(turn), np.maximum(y + reach * np.sin(turn), 0), np.zeros(corners)], -1)[None]


def tree(rng: np.random.Generator, colours: Palette, size: float | None = None) -> Model:
    """A broadleaf tree, 5-10 m; the trunk is vegetation too, as in Cityscapes."""
    tall = float(rng.uniform(5.5, 9.5)) if size is None else size
    leaf = vary(rng, colours.leaves[int(rng.integers(len(colours.leaves)))])
    crown = tall * float(rng.uniform(0.27, 0.34))
    middle = tall - crown
    bark = vary(rng, (92, 76, 62), 0.15)
    parts = [Part(front(stroke(0.0, 0.0, 0.0, middle, 0.05 * tall, 0.03 * tall)), bark, VEGETATION)]
    for layer, (count, spread, factor) in enumerate(((7, 0.62, 0.74), (7, 0.58, 0.92), (6, 0.5, 1.1), (4, 0.42, 1.3))):
        for i in range(count):
            angle = 2 * math.pi * (i + float(rng.random())) / count
            x, y = spread * crown * math.cos(angle), spread * crown * 0.85 * math.sin(angle) + 0.12 * layer * crown
            blob = _blob(rng, x, middle + y, crown * (0.52 - 0.09 * layer))
            parts.append(Part(blob, tone(leaf, factor * float(rng.uniform(0.94, 1.06))), VEGETATION))
    return Model(parts, crown * 0.8, crown * 0.8, tall)


def bush(rng: np.random.Generator, colours: Palette) -> Model:
    """A shrub 1-2 m high and twice as wide."""
    leaf, tall = vary(rng, colours.leaves[int(rng.integers(len(colours.leaves)))]), float(rng.uniform(1.0, 2.0))
    parts = []
    for factor, share in ((0.75, 0.62), (0.95, 0.5), (1.2, 0.34)):
        for x in (-0.6, 0.0, 0.55):
            blob = _blob(rng, x * tall + float(rng.uniform(-0.2, 0.2)), tall * (1 - share) * 0.95, tall * share)
            parts.append(Part(blob, tone(leaf, factor), VEGETATION))
    return Model(parts, tall, 0.5, tall)


def lamp(colours: Palette, arm: float) -> Model:
    """A street lamp; `arm` is how far it reaches over the road, to the right if positive."""
    parts = [Part(front(stroke(0.0, 0.0, 0.0, 7.2, 0.34, 0.2)), colours.steel, POLE),
             Part(front(stroke(0.0, 7.1, arm, 7.6, 0.18)), colours.steel, POLE),
             Part(front(rect(-0.22, 0.22, 0.0, 0.9)), tone(colours.steel, 0.8), POLE),
             Part(front(rect(arm - 0.35, arm + 0.35, 7.48, 7.66)), tone(colours.steel, 0.8), POLE),
             Part(front(rect(arm - 0.28, arm + 0.28, 7.4, 7.5)), LIT, None, None, glow=True)]  # fmt: skip
    return Model(parts, 0.12, 0.12, 5.0)


def _signal(x: float, low: float, lit: int) -> list[Part]:
    """A three-lamp head, its middle at x."""
    parts = [Part(front(rect(x - 0.34, x + 0.34, low, low + 1.6)), (34, 38, 36), LIGHT)]
    for i, colour in enumerate(((60, 216, 120), (250, 180, 40), (240, 44, 36))):
        on = i == lit
        lens = front(disc(x, low + 0.31 + 0.49 * i, 0.2, corners=12))
        parts.append(Part(lens, colour if on else tone(colour, 0.3), None, None, on))
    return parts


def traffic_light(rng: np.random.Generator, colours: Palette, arm: float) -> Model:
    """A post with one head, and a second over the lane where there is an `arm`."""
    lit = int(rng.integers(3))
    parts = [Part(front(rect(-0.15, 0.15, 0.0, 5.6 if arm else 3.6)), colours.steel, POLE)]
    if arm:
        parts.append(Part(front(stroke(0.0, 5.5, arm, 5.6, 0.2)), colours.steel, POLE))
        parts += _signal(arm, 4.7, lit)
    return Model(parts + _signal(0.0, 2.4, lit), 0.12, 0.12, 4.0)


def sign(rng: np.random.Generator, colours: Palette) -> Model:
    """A traffic sign on its pole: round, triangular, square, or a direction board."""
    kind, y = int(rng.integers(5)), float(rng.uniform(2.35, 2.8))
    parts = [Part(front(rect(-0.09, 0.09, 0.0, y)), colours.steel, POLE)]
    if kind == 0:
        parts += [
            Part(front(disc(0.0, y, 0.46)), RED, SIGN),
            Part(front(disc(0.0, y, 0.34)), WHITE),
            Part(front(rect(-0.16, 0.16, y - 0.14, y + 0.14)), (40, 40, 42)),
        ]
    elif kind == 1:
        parts += [
            Part(front([(-0.55, y - 0.4), (0.55, y - 0.4), (0.0, y + 0.58)]), RED, SIGN),
            Part(front([(-0.34, y - 0.28), (0.34, y - 0.28), (0.0, y + 0.33)]), WHITE),
        ]
    elif kind == 2:
        parts += [
            Part(front(disc(0.0, y, 0.46)), (36, 84, 168), SIGN),
            Part(front(stroke(-0.2, y - 0.2, 0.2, y + 0.2, 0.14)), WHITE),
        ]
    elif kind == 3:
        parts += [
            Part(front([(0.0, y - 0.6), (0.6, y), (0.0, y + 0.6), (-0.6, y)]), WHITE, SIGN),
            Part(front([(0.0, y - 0.42), (0.42, y), (0.0, y + 0.42), (-0.42, y)]), (236, 190, 40)),
        ]
    else:
        paint = pick(rng, ((36, 84, 168), (236, 200, 60), (238, 238, 234)))
        ink = WHITE if paint[0] < 120 else (40, 40, 44)
        parts += [
            Part(front(rect(-0.9, 0.9, y - 0.4, y + 0.4)), paint, SIGN),
            Part(grid([(-0.7, 0.3, y + 0.08, y + 0.22), (-0.7, 0.6, y - 0.24, y - 0.1)], 0.0, False), ink),
        ]
    return Model(parts, 0.1, 0.1, 2.8)


def bin_(rng: np.random.Generator) -> Model:
    """A litter bin: void ("static")."""
    paint = tone(pick(rng, PAINTS), 0.8)
    parts = [
        Part(front([(-0.26, 0.0), (0.26, 0.0), (0.32, 0.95), (-0.32, 0.95)]), paint, STATIC),
        Part(front(rect(-0.35, 0.35, 0.9, 1.02)), tone(paint, 0.6), STATIC),
    ]
    return Model(parts, 0.3, 0.3, 1.0)

"""Things as lists of flat coloured polygons in three dimensions, and the few shapes that they are made of.

Metres throughout. A point is (right, up, forward) in the thing's own frame: the origin is on the ground under it and
"forward" is where it heads. `brush.Brush` draws them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]
"""RGB 0-255 under white noon light."""
Flat = Sequence[tuple[float, float]]
"""A polygon in a plane: two coordinates a corner."""

# Cityscapes' labelIds.
EGO, STATIC, GROUND, ROAD, SIDEWALK, TRACK = 1, 4, 6, 7, 8, 10
BUILDING, WALL, FENCE, POLE, LIGHT, SIGN = 11, 12, 13, 17, 19, 20
VEGETATION, TERRAIN, SKY, PERSON, RIDER = 21, 22, 23, 24, 25
CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE = 26, 27, 28, 31, 32, 33


@dataclass(frozen=True)
class Part:
    """Polygons of one colour that share a label and a side."""

    polygons: np.ndarray
    """float64 [polygons, corners, 3]."""
    colour: Colour | None
    """None marks the label only, as for what is seen through a fence."""
    label: int | None = None
    """labelId, or None for a detail on top of a part that has one."""
    normal: tuple[float, float, float] | None = None
    """Outward; the part is not drawn from behind. None: a cut-out that is seen from everywhere."""
    glow: bool = False
    """Shines by itself where the mood has lamps on: no light or shade changes it then."""
    night: bool = False
    """Not there unless lamps are on."""


class Model:
    """Parts in painting order, ready to be placed: all corners in one array [corners, 3]."""

    def __init__(self, parts: Iterable[Part], half_width: float, half_length: float, height: float) -> None:
        self.parts = tuple(parts)
        self.points = np.concatenate([part.polygons.reshape(-1, 3) for part in self.parts])
        stops = np.cumsum([part.polygons.shape[0] * part.polygons.shape[1] for part in self.parts])
        self.slices = tuple(
            slice(stop - part.polygons.shape[0] * part.polygons.shape[1], stop)
            for stop, part in zip(stops.tolist(), self.parts, strict=True)
        )
        self.sizes = tuple(float(np.ptp(part.polygons, axis=1).max()) for part in self.parts)
        self.reach = float(np.abs(self.points[:, (0, 2)]).max())
        self.half_width, self.half_length, self.height = half_width, half_length, height


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b in a."""
    return (a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share, a[2] + (b[2] - a[2]) * share)


def tone(colour: Colour, factor: float) -> Colour:
    return (min(colour[0] * factor, 255), min(colour[1] * factor, 255), min(colour[2] * factor, 255))


def front(shape: Flat, forward: float = 0.0) -> np.ndarray:
    """(right, up) corners upright across the heading, [1, corners, 3]."""
    return np.array([[(right, up, forward) for right, up in shape]], dtype=float)


def side(shape: Flat, right: float = 0.0) -> np.ndarray:
    """(forward, up) corners upright along the heading, [1, corners, 3]."""
    return np.array([[(right, up, forward) for forward, up in shape]], dtype=float)


def rect(left: float, right: float, low: float, high: float) -> list[tuple[float, float]]:
    return [(left, low), (right, low), (right, high), (left, high)]


def disc(x: float, y: float, radius: float, squeeze: float = 1.0, corners: int = 14) -> list[tuple[float, float]]:
    """A circle, its width times `squeeze`."""
    turn = 2 * math.pi / corners
    return [(x + radius * squeeze * math.cos(i * turn), y + radius * math.sin(i * turn)) for i in range(corners)]


def stroke(
    x0: float, y0: float, x1: float, y1: float, width: float, end: float | None = None
) -> list[tuple[float, float]]:
    """A thick line; `end` is its width at the second point."""
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    nx, ny = -(y1 - y0) / length / 2, (x1 - x0) / length / 2
    last = width if end is None else end
    return [
        (x0 + nx * width, y0 + ny * width),
        (x0 - nx * width, y0 - ny * width),
        (x1 - nx * last, y1 - ny * last),
        (x1 + nx * last, y1 + ny * last),
    ]


def grid(boxes: Sequence[tuple[float, float, float, float]], at: float, along: bool) -> np.ndarray:
    """Boxes (left, right, low, high), upright: across the heading at forward = `at`, or along it at right = `at`."""
    flat = np.array([[(a, c), (b, c), (b, d), (a, d)] for a, b, c, d in boxes], dtype=float)
    fixed = np.full(flat.shape[:2], at)
    columns = (fixed, flat[..., 1], flat[..., 0]) if along else (flat[..., 0], flat[..., 1], fixed)
    return np.stack(columns, axis=-1)


def prism(profile: Flat, width: float, colours: Sequence[Colour], flank: Colour, label: int) -> list[Part]:
    """A profile of (forward, up) corners, rear bottom first and over the roof to the front, swept across `width`.

    `colours` are those of the faces between consecutive corners (the last closes the bottom and is not drawn).
    """
    parts = []
    half = width / 2
    for (f0, u0), (f1, u1), colour in zip(profile, profile[1:], colours, strict=False):
        length = math.hypot(f1 - f0, u1 - u0)
        quad = np.array([[(-half, u0, f0), (half, u0, f0), (half, u1, f1), (-half, u1, f1)]])
        parts.append(Part(quad, colour, label, (0.0, (f1 - f0) / length, -(u1 - u0) / length)))
    for sign in (-1.0, 1.0):
        parts.append(Part(side(profile, sign * half), flank, label, (sign, 0.0, 0.0)))
    return parts

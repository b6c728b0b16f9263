"""Light, weather and colours of a drive.

The palettes are shared on purpose: cars, vans, buses, trucks, trams and clothes take the same colours, and so do houses
and garden walls, so that colour alone does not tell the class.
"""

from dataclasses import dataclass

import numpy as np

from roadseg.scenes.streets.model import Colour, mix, tone


@dataclass(frozen=True)
class Mood:
    """One hour and weather."""

    top: Colour
    """Sky at the zenith."""
    low: Colour
    """Sky at the horizon; haze takes this colour."""
    clouds: float
    """Cloud cover, 0-1."""
    cloud: Colour
    light: Colour
    """Factor on every colour that does not glow, 1 = noon."""
    shadow: float
    """How dark a cast shadow is, 0-1; it falls off under cloud."""
    haze: float
    """Extinction, 1/m."""
    grain: float
    """Sensor noise, standard deviation in grey levels."""
    lamps: bool = False
    """Headlights and windows are lit."""
    rain: bool = False


MOODS = {
    "noon": Mood((78, 134, 205), (186, 212, 232), 0.35, (250, 250, 252), (1.05, 1.04, 1.0), 0.45, 0.0016, 2.5),
    "overcast": Mood((166, 172, 180), (206, 209, 212), 0.9, (224, 226, 230), (0.86, 0.88, 0.92), 0.16, 0.004, 3.0),
    "golden": Mood((108, 132, 182), (250, 205, 150), 0.45, (255, 226, 196), (1.06, 0.9, 0.7), 0.42, 0.004, 3.0),
    "fog": Mood((190, 194, 198), (205, 207, 209), 0.1, (208, 210, 212), (0.86, 0.88, 0.9), 0.08, 0.019, 3.0),
    "afternoon": Mood((92, 144, 206), (206, 218, 226), 0.55, (246, 246, 244), (1.0, 0.97, 0.9), 0.4, 0.0024, 2.5),
    "dusk": Mood((44, 54, 98), (206, 134, 110), 0.5, (122, 98, 118), (0.56, 0.52, 0.6), 0.1, 0.006, 5.0, lamps=True),
    "rain": Mood(
        (124, 132, 142),
        (168, 174, 180),
        0.95,
        (150, 156, 164),
        (0.64, 0.68, 0.74),
        0.1,
        0.011,
        3.5,
        lamps=True,
        rain=True,
    ),
    "morning": Mood((126, 160, 204), (232, 218, 200), 0.3, (250, 240, 232), (0.94, 0.9, 0.86), 0.34, 0.006, 2.5),
}
"""Dealt in turn to a split's drives, so that eight drives see each once."""

PAINTS: tuple[Colour, ...] = (
    (232, 232, 228),
    (176, 180, 184),
    (96, 100, 106),
    (40, 42, 46),
    (36, 64, 128),
    (152, 32, 34),
    (28, 78, 62),
    (208, 164, 44),
    (196, 92, 36),
    (110, 140, 176),
    (148, 132, 108),
    (92, 48, 60),
)
"""Vehicles and clothes."""
FACADES: tuple[Colour, ...] = (
    (150, 146, 140),
    (190, 176, 150),
    (164, 96, 76),
    (206, 196, 180),
    (122, 124, 130),
    (178, 148, 104),
    (142, 118, 104),
    (196, 168, 148),
    (108, 100, 96),
    (160, 166, 160),
)
"""Houses and walls."""
SKINS: tuple[Colour, ...] = ((224, 180, 152), (196, 146, 114), (140, 96, 72), (92, 62, 48))
LEAVES: tuple[Colour, ...] = ((62, 98, 44), (78, 108, 52), (96, 112, 48), (52, 84, 50), (138, 112, 46), (122, 84, 40))
GRASS: tuple[Colour, ...] = ((92, 122, 60), (112, 128, 66), (138, 132, 82), (76, 108, 56), (150, 130, 96))
PAVING: tuple[Colour, ...] = ((142, 140, 138), (120, 120, 122), (156, 146, 134), (150, 124, 112), (108, 106, 104))


@dataclass(frozen=True)
class Palette:
    """The colours of one drive's town."""

    road: Colour
    paving: Colour
    grass: Colour
    leaves: tuple[Colour, ...]
    facades: tuple[Colour, ...]
    steel: Colour
    """Poles and fences."""


def vary(rng: np.random.Generator, colour: Colour, spread: float = 0.08) -> Colour:
    """A neighbour of the colour: brightness and, half as much, each channel."""
    grey = 1 + spread * rng.uniform(-1, 1)
    r, g, b = (1 + spread / 2 * rng.uniform(-1, 1, 3)).tolist()
    return (min(colour[0] * grey * r, 255), min(colour[1] * grey * g, 255), min(colour[2] * grey * b, 255))


def pick(rng: np.random.Generator, colours: tuple[Colour, ...], spread: float = 0.08) -> Colour:
    return vary(rng, colours[int(rng.integers(len(colours)))], spread)


def palette(rng: np.random.Generator) -> Palette:
    leaf = int(rng.integers(len(LEAVES)))
    grey = float(rng.uniform(74, 122))
    return Palette(
        road=vary(rng, (grey, grey, grey * 1.02), 0.04),
        paving=pick(rng, PAVING),
        grass=pick(rng, GRASS),
        leaves=tuple(vary(rng, mix(LEAVES[leaf], LEAVES[(leaf + 1) % len(LEAVES)], share)) for share in (0, 0.25, 0.5)),
        facades=tuple(pick(rng, FACADES, 0.1) for _ in range(5)),
        steel=tone(pick(rng, ((128, 132, 134), (82, 88, 92), (64, 82, 74), (160, 162, 160))), 0.95),
    )

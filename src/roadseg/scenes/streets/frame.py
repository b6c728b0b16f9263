"""One frame of a drive: sky, ground and things, back to front, then what the lens and the sensor add."""

from collections.abc import Callable

import cv2
import numpy as np

from roadseg.scenes.streets import model as m
from roadseg.scenes.streets.brush import FAR, GRAIN, Brush, Camera
from roadseg.scenes.streets.drive import CROSSING, CURB, PARKING, Drive, Side
from roadseg.scenes.streets.model import Colour, mix, tone
from roadseg.scenes.streets.traffic import LANE

PAINT: Colour = (226, 226, 220)
# How strongly each labelId is speckled, and how strongly its ground is mottled.
SPECKLE = np.full(256, 0.02, np.float32)
SPECKLE[[m.VEGETATION, m.TERRAIN, m.WALL, m.BUILDING, m.SKY]] = (0.11, 0.08, 0.05, 0.03, 0.0)
MOTTLE = np.zeros(256, np.float32)
MOTTLE[[m.ROAD, m.SIDEWALK, m.TERRAIN, m.TRACK, m.GROUND]] = (0.06, 0.05, 0.14, 0.14, 0.1)


def draw_frame(
    drive: Drive, frame: int, height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(image uint8 [height, width, 3] RGB, ids uint8 [height, width] labelIds)."""
    focal = 1.15 * width
    tilt = 0.012 * float(rng.uniform(-1, 1))
    camera = Camera(
        focal=focal * GRAIN,
        centre=width * GRAIN * (0.5 + 0.02 * float(rng.uniform(-1, 1))),
        horizon=height * GRAIN * (drive.horizon + tilt),
        height=drive.camera_height,
        x=drive.lane + 0.3 * float(rng.uniform(-1, 1)),
        bend=drive.bend * float(np.cos(0.25 * frame)),
    )
    brush = Brush(height, width, camera, drive.mood, drive.sun)
    _sky(brush, drive, rng)
    _skyline(brush, drive)
    items = drive.frame_items(frame)
    _ground(brush, drive, frame)
    for item in items:
        brush.shadow(item.model, item.x, item.z, item.heading)
    brush.settle_shadows()
    _plots(brush, drive, frame)
    for item in items:
        brush.place(item.model, item.x, item.z, item.heading)
    if drive.bonnet:
        _bonnet(brush)
    ids = brush.ids[GRAIN // 2 :: GRAIN, GRAIN // 2 :: GRAIN].copy()
    image = cv2.resize(brush.image, (width, height), interpolation=cv2.INTER_AREA)
    return _develop(image, ids, brush, drive, frame, rng), ids


def _sky(brush: Brush, drive: Drive, rng: np.random.Generator) -> None:
    """A gradient under layered clouds, down to the horizon and a little below it."""
    mood, rows = drive.mood, int(brush.camera.horizon) + 8
    height, width = max(rows // 4, 8), brush.image.shape[1] // 4
    up = np.linspace(1, 0, height, dtype=np.float32)[:, None, None]
    sky = np.array(mood.low, np.float32) + (np.array(mood.top, np.float32) - np.array(mood.low, np.float32)) * up**0.8
    cover = np.zeros((height, width), np.float32)
    for octave in range(4):
        cells = (4 * 2**octave, 3 * 2**octave)
        noise = rng.random(cells[::-1], dtype=np.float32)
        cover += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 0.55**octave
    cover = np.clip((cover / 2.02 - (0.68 - 0.36 * mood.clouds)) * 5, 0, 1) * (0.25 + 0.75 * up[..., 0])
    sky = sky + (np.array(mood.cloud, np.float32) - sky) * (cover * 0.85)[..., None]
    painted = cv2.resize(np.clip(sky, 0, 255).astype(np.uint8), (brush.image.shape[1], rows))
    brush.image[:rows], brush.ids[:] = painted, m.SKY


def _skyline(brush: Brush, drive: Drive) -> None:
    """Far roofs and treetops along the horizon."""
    horizon, width = brush.camera.horizon, brush.image.shape[1]
    floor = horizon + brush.camera.focal * brush.camera.height / FAR + 3
    step, unit = width / 32, brush.image.shape[1] * 0.016
    for i in range(32):
        tall = unit * (0.6 + 2.2 * float(drive.skyline[i]))
        trees = drive.skyline[i + 32] < 0.4
        colour = drive.colours.leaves[0] if trees else drive.colours.facades[i % 5]
        lean = 0.2 * step if trees else 0.0
        shape = [(i * step - lean, floor), (i * step, horizon - tall), (i * step + step * 1.1, horizon - tall),
                 (i * step + step * 1.1 + lean, floor)]  # fmt: skip
        brush.fill(np.array([shape]), brush.shade(colour, 150), m.VEGETATION if trees else m.BUILDING)


def _ground(brush: Brush, drive: Drive, frame: int) -> None:
    """The strips of the street, the crossings and all that is painted on the road."""
    shift, colours = drive.step * frame, drive.colours
    brush.ground(-70, 70, 1.5, FAR, mix(colours.grass, (120, 116, 108), 0.5), m.GROUND)
    left, right = drive.sides
    for side in drive.sides:
        _strips(brush, drive, side, shift)
    brush.ground(-left.curb, right.curb, 1.5, FAR, colours.road, m.ROAD)
    crossings = [start - shift for start in drive.crossings if -CROSSING < start - shift < FAR]
    for start in crossings:
        brush.ground(-60, 60, start, start + CROSSING, tone(colours.road, 0.97), m.ROAD)
    if drive.median:
        _rails(brush, 0.0, tone(colours.road, 0.88), m.ROAD)
    _markings(brush, drive, shift, crossings)


def _strips(brush: Brush, drive: Drive, side: Side, shift: float) -> None:
    colours, sign = drive.colours, side.sign

    def band(inner: float, outer: float, colour: Colour, label: int, start: float = 1.5, stop: float = FAR) -> None:
        a, b = sorted((sign * inner, sign * outer))
        brush.ground(a, b, start, stop, colour, label)

    for block in side.blocks:
        if block.stop - shift > 1.5 and block.start - shift < FAR and block.kind in ("fence", "park"):
            band(side.edge, side.edge + 22, colours.grass, m.TERRAIN, block.start - shift, block.stop - shift)
    band(side.curb, side.walk, colours.paving, m.SIDEWALK)
    for i in range(14):  # joints between the flags
        z = 2.0 * i - shift % 2.0
        band(side.verge, side.walk, tone(colours.paving, 0.86), m.SIDEWALK, z, z + 0.12)
    if side.verge - side.curb > 1:
        band(side.curb, side.verge, colours.grass, m.TERRAIN)
    band(side.curb, side.curb + CURB, mix(colours.paving, (190, 190, 188), 0.5), m.SIDEWALK)
    if side.edge > side.walk:
        band(side.walk, side.edge, mix((124, 112, 100), colours.grass, 0.2), m.TRACK)
        _rails(brush, sign * (side.walk + side.edge) / 2, None, m.TRACK)


def _rails(brush: Brush, x: float, bed: Colour | None, label: int) -> None:
    if bed:
        brush.ground(x - 1.35, x + 1.35, 1.5, FAR, bed, label)
    for rail in (-0.72, 0.72):
        brush.ground(x + rail - 0.06, x + rail + 0.06, 1.5, FAR, (70, 66, 64), label)
        brush.ground(x + rail - 0.02, x + rail + 0.03, 1.5, 40, (176, 178, 182), label)


def _markings(brush: Brush, drive: Drive, shift: float, crossings: list[float]) -> None:
    """Lines, dashes, zebras and patches; all of it is road."""
    left, right = drive.sides
    rng = np.random.default_rng(drive.number)

    def line(x: float, start: float, stop: float, half: float = 0.07, colour: Colour = PAINT) -> None:
        brush.ground(x - half, x + half, start, stop, colour, None)

    for patch in range(int(drive.length / 9)):  # mended asphalt
        z, x = 9.0 * patch + float(rng.uniform(0, 6)) - shift, float(rng.uniform(-left.curb, right.curb - 2))
        wide, long = float(rng.uniform(0.8, 2)), float(rng.uniform(1, 5))
        brush.ground(x, x + wide, z, z + long, tone(drive.colours.road, 0.86), None)
    free = [1.5] + [end for start in crossings for end in (start - 4, start + CROSSING + 1)] + [FAR]
    for start, stop in zip(free[::2], free[1::2], strict=True):
        for side in drive.sides:
            edge = side.sign * (side.curb - (PARKING if side.parking else 0) - 0.3)
            line(edge, start, stop)
            if drive.median:
                line(side.sign * (drive.inner - 0.1), start, stop)
            for lane in range(1, drive.lanes):
                _dashes(line, side.sign * (drive.inner + LANE * lane), start, stop, shift)
        if not drive.median:
            _dashes(line, 0.0, start, stop, shift)
    for start in (start for start in crossings if start < 55):
        stripes = np.arange(-left.curb + 0.4, right.curb - 0.5, 1.0)
        for x in stripes.tolist():
            line(x + 0.25, start - 2.8, start - 0.3, 0.26)
        brush.ground(drive.inner, right.curb, start - 3.9, start - 3.5, PAINT, None)


def _dashes(line: Callable[[float, float, float], None], x: float, start: float, stop: float, shift: float) -> None:
    for i in range(11):
        z = 6.0 * i - shift % 6.0
        line(x, max(z, start), min(z + 3.0, stop))


def _plots(brush: Brush, drive: Drive, frame: int) -> None:
    shift = drive.step * frame
    for side in drive.sides:
        for block in reversed(side.blocks):
            if block.stop - shift > 1.0 and block.start - shift < FAR:
                for item in block.items:
                    brush.place(item.model, item.x, item.z - shift, item.heading)


def _bonnet(brush: Brush) -> None:
    height, width = brush.ids.shape
    for lift, grey in ((0.085, 34), (0.075, 52), (0.04, 42)):
        dome = m.disc(width / 2, height, height * lift, 0.46 * width / (height * lift), 40)
        brush.fill(np.array([dome]), brush.shade((grey, grey + 2, grey + 5), 1), m.EGO)


def _develop(
    image: np.ndarray, ids: np.ndarray, brush: Brush, drive: Drive, frame: int, rng: np.random.Generator
) -> np.ndarray:
    """Surfaces, rain, bloom, vignette and grain."""
    height, width = ids.shape
    mood, camera = drive.mood, brush.camera
    speckle = rng.standard_normal((height, width), dtype=np.float32)
    factor = 1 + SPECKLE[ids] * cv2.blur(speckle, (2, 2)) * 2
    rows = np.arange(height, dtype=np.float32) + 0.5 - camera.horizon / GRAIN
    first = int(np.argmax(rows > 1.5))
    depth = (camera.focal / GRAIN * camera.height / rows[first:])[:, None]
    right = (np.arange(width, dtype=np.float32)[None] + 0.5 - camera.centre / GRAIN) * depth / (camera.focal / GRAIN)
    right = right + camera.x - camera.bend * depth * depth
    ahead = np.broadcast_to(depth + drive.step * frame, right.shape)
    coarse = drive.texture[np.floor(ahead * 1.5).astype(int) % 256, np.floor(right * 1.5).astype(int) % 256]
    fine = drive.texture[np.floor(ahead * 14).astype(int) % 256, np.floor(right * 14).astype(int) % 256]
    near = np.clip(9 / depth, 0, 1)
    factor[first:] += MOTTLE[ids[first:]] * (0.35 * coarse + 0.7 * fine) * near
    picture = image.astype(np.float32) * factor[..., None]
    if mood.lamps:
        bright = np.clip(picture - 185, 0, None)
        picture += 1.6 * cv2.GaussianBlur(bright, (0, 0), height / 60)
    if mood.rain:
        picture = _wet(picture, ids, height)
        streaks = (rng.random((height, width), dtype=np.float32) > 0.996).astype(np.float32)
        picture += 190 * cv2.blur(streaks, (1, max(height // 12, 3)))[..., None]
    across, down = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    picture *= (1 - 0.09 * (across[None] ** 2 + down[:, None] ** 2))[..., None]
    picture += mood.grain * rng.standard_normal(picture.shape, dtype=np.float32)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _wet(picture: np.ndarray, ids: np.ndarray, height: int) -> np.ndarray:
    """A wet road mirrors, smeared, what stands above it."""
    reach = max(height // 4, 3)
    smear = cv2.blur(np.roll(picture, reach // 2, axis=0), (3, reach))
    shine = np.where((ids == m.ROAD)[..., None], np.float32(0.4), np.float32(0))
    return picture + (smear - picture) * shine

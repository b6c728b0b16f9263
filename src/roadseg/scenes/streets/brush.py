"""The camera, and the brush that draws models and ground through it.

The picture is painted back to front at `GRAIN` times its size and averaged down; the labels are painted by the same
strokes and sampled at the pixels' centres, so that they are crisp and agree with what is seen.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from roadseg.scenes.streets.model import Colour, Model
from roadseg.scenes.streets.mood import Mood

GRAIN = 3
NEAR, FAR = 0.6, 85.0
_SHIFT = 4  # fractional bits of cv2's corners


@dataclass(frozen=True)
class Camera:
    """Pinhole above a road that bends. Points are (right, up, ahead) in metres from the road's middle below it."""

    focal: float
    """Pixels of the fine canvas."""
    centre: float
    """Column of the optical axis, fine pixels."""
    horizon: float
    """Row of the horizon, fine pixels."""
    height: float
    """Metres above the ground."""
    x: float
    """Metres right of the road's middle."""
    bend: float
    """Sideways drift of the road, metres a square metre ahead."""

    def project(self, points: np.ndarray) -> np.ndarray:
        """[..., 3] metres to [..., 2] fine pixels; what is nearer than NEAR is moved there."""
        z = np.maximum(points[..., 2], NEAR)
        scale = self.focal / z
        pixels = np.empty((*points.shape[:-1], 2))
        pixels[..., 0] = self.centre + (points[..., 0] - self.x + self.bend * z * z) * scale
        pixels[..., 1] = self.horizon + (self.height - points[..., 1]) * scale
        return pixels

    def sees(self, x: float, z: float, reach: float, edge: float) -> bool:
        """Whether anything within `reach` of (x, z) can be left of the column `edge` and right of column 0."""
        column = self.centre + (x - self.x + self.bend * z * z) * self.focal / max(z, NEAR)
        margin = reach * self.focal / max(z - reach, NEAR)
        return -margin < column < edge + margin


class Brush:
    """Paints one frame: `image` uint8 [GRAIN*H, GRAIN*W, 3] RGB, `ids` uint8 [GRAIN*H, GRAIN*W] labelIds."""

    def __init__(self, height: int, width: int, camera: Camera, mood: Mood, sun: tuple[float, float, float]) -> None:
        self.image = np.zeros((height * GRAIN, width * GRAIN, 3), np.uint8)
        self.ids = np.zeros((height * GRAIN, width * GRAIN), np.uint8)
        self.dark = np.zeros_like(self.ids)
        self.camera, self.mood, self.sun = camera, mood, sun

    def shade(self, colour: Colour, depth: float, facing: float = 1.0, glow: bool = False) -> Colour:
        """The colour as it looks `depth` metres away; `facing` is its share of the light."""
        mood, clear = self.mood, math.exp(-self.mood.haze * depth)
        if glow:
            clear = math.sqrt(clear)
            return tuple(c * clear + low * (1 - clear) for c, low in zip(colour, mood.low, strict=True))  # type: ignore[return-value]
        r, g, b = mood.light
        veil = 1 - clear
        r, g, b = r * facing * clear, g * facing * clear, b * facing * clear
        return (
            min(colour[0] * r + mood.low[0] * veil, 255),
            min(colour[1] * g + mood.low[1] * veil, 255),
            min(colour[2] * b + mood.low[2] * veil, 255),
        )

    def fill(self, pixels: np.ndarray, colour: Colour | None, label: int | None) -> None:
        """Polygons [polygons, corners, 2] in fine pixels, in the colour as it is."""
        self._fill(list(_fixed(pixels)), colour, label)

    def _fill(self, corners: list[np.ndarray], colour: Colour | None, label: int | None) -> None:
        if colour is not None:
            cv2.fillPoly(self.image, corners, colour, cv2.LINE_8, _SHIFT)
        if label is not None:
            cv2.fillPoly(self.ids, corners, label, cv2.LINE_8, _SHIFT)

    def ground(self, left: float, right: float, start: float, stop: float, colour: Colour, label: int | None) -> None:
        """A band of the road plane between two x, from z `start` to `stop`, hazed in steps of depth."""
        start, stop = max(start, 1.5), min(stop, FAR)
        if start >= stop:
            return
        steps = 1 + max(1, math.ceil(math.log(stop / start) * 5))
        edges = np.zeros((steps, 2, 3))
        depths = start * (stop / start) ** (np.arange(steps) / (steps - 1))
        edges[:, 0, 0], edges[:, 1, 0], edges[..., 2] = left, right, depths[:, None]
        corners = _fixed(self.camera.project(edges))
        for i in range(steps - 1, 0, -1):
            depth = float(depths[i - 1] + depths[i]) / 2
            quad = np.concatenate([corners[i - 1], corners[i, ::-1]])
            self._fill([quad], self.shade(colour, depth), label)

    def place(self, model: Model, x: float, z: float, heading: float) -> None:
        """Draw the model with its origin at (x, 0, z), turned `heading` radians clockwise from straight ahead."""
        if not self.camera.sees(x, z, model.reach, self.ids.shape[1]):
            return
        cos, sin = math.cos(heading), math.sin(heading)
        points = np.empty_like(model.points)
        points[:, 0] = model.points[:, 0] * cos + model.points[:, 2] * sin + x
        points[:, 1] = model.points[:, 1]
        points[:, 2] = model.points[:, 2] * cos - model.points[:, 0] * sin + z
        corners = _fixed(self.camera.project(points))
        smallest = 1.8 * max(z, 1.0) / self.camera.focal  # what is smaller than a pixel is left out
        for part, rows, size in zip(model.parts, model.slices, model.sizes, strict=True):
            if size < (smallest if part.label else 2 * smallest) or (part.night and not self.mood.lamps):
                continue
            eye, facing = points[rows.start], 0.94
            if part.normal is not None:
                right, up, ahead = part.normal
                nx, nz = right * cos + ahead * sin, ahead * cos - right * sin
                drift = self.camera.bend * eye[2] * abs(eye[2])
                if nx * (eye[0] - self.camera.x + drift) + up * (eye[1] - self.camera.height) + nz * eye[2] >= 0:
                    continue
                toward = nx * self.sun[0] + up * self.sun[1] + nz * self.sun[2]
                facing = 0.86 + toward * (0.1 + 0.45 * self.mood.shadow)
            glow = part.glow and self.mood.lamps
            colour = None if part.colour is None else self.shade(part.colour, max(float(eye[2]), NEAR), facing, glow)
            self._fill(list(corners[rows].reshape(part.polygons.shape[0], -1, 2)), colour, part.label)

    def shadow(self, model: Model, x: float, z: float, heading: float) -> None:
        """Mark the model's shadow on the ground: under it, and where the sun throws it."""
        if not self.camera.sees(x, z, model.half_length + 5, self.ids.shape[1]):
            return
        cos, sin = abs(math.cos(heading)), abs(math.sin(heading))
        half_x = model.half_width * cos + model.half_length * sin
        half_z = model.half_length * cos + model.half_width * sin
        length = 0.6 * min(model.height, 6.0) if self.mood.shadow > 0.3 else 0.1
        corners = [
            (x + i * half_x - k * self.sun[0], 0.0, z + j * half_z - k * self.sun[2])
            for i in (-1, 1)
            for j in (-1, 1)
            for k in (0.0, length)
        ]
        pixels = np.round(self.camera.project(np.array(corners))).astype(np.int32)
        cv2.fillConvexPoly(self.dark, cv2.convexHull(pixels), 255)

    def settle_shadows(self) -> None:
        """Darken the ground by all shadows marked so far."""
        top = max(int(self.camera.horizon), 0)
        soft = cv2.blur(self.dark[top:], (5, 5))
        keep = np.rint(255 * (1 - max(self.mood.shadow, 0.28) * (np.arange(256) / 255))).astype(np.uint8)
        factor = cv2.LUT(soft, keep)
        self.image[top:] = cv2.multiply(self.image[top:], cv2.merge([factor] * 3), scale=1 / 255)


def _fixed(pixels: np.ndarray) -> np.ndarray:
    """cv2's fixed-point corners, kept within its range; a pixel's centre is at its whole number there."""
    return np.rint(np.minimum(np.maximum(pixels, -20000), 20000) * (1 << _SHIFT) - (1 << _SHIFT) / 2).astype(np.int32)

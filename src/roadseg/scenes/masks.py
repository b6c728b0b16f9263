"""Reading masks as the data sets ship them: whatever the encoding, uint8 HW raw ids come out.

- index: 8-bit grey (mode L), the value is the id
- palette: 8-bit with a palette (mode P), the index is the id. The palette's colours are never looked at: they may be
  older than the classes (Mapillary), and several ids may share one
- colour: 8-bit RGB, the colour is looked up in the raw labels' table
- instance1000: 16-bit, id * 1000 + instance, or the plain id where there is no instance (Cityscapes)
- instance256: 16-bit, id * 256 + instance (KITTI, Mapillary)
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from roadseg.errors import UserError
from roadseg.labels import RawLabels
from roadseg.scenes import png

Encoding = Literal["index", "palette", "colour", "instance1000", "instance256"]

MODES: dict[str, tuple[str, ...]] = {
    "index": ("L",),
    "palette": ("P",),
    "colour": ("RGB",),
    "instance1000": ("I;16", "I"),
    "instance256": ("I;16", "I"),
}
WANTED = {
    "index": "an 8-bit mask of ids",
    "palette": "an 8-bit mask of palette indices",
    "colour": "an 8-bit RGB mask of colours",
    "instance1000": "a 16-bit mask of instances",
    "instance256": "a 16-bit mask of instances",
}


def read(path: Path, encoding: Encoding, raw: RawLabels, *, tolerate: int = 0) -> np.ndarray:
    """uint8 HW raw ids of a mask.

    Up to `tolerate` pixels of colours that `raw` does not have become an id that it does not have either, if there is
    one. UserError naming the file where it is unreadable, of another encoding, or of unknown colours.
    """
    stored = png.read(path, MODES[encoding], WANTED[encoding], exact=True)
    if encoding in ("index", "palette"):
        return stored
    if encoding == "colour":
        return _ids_of_colours(path, stored, raw, tolerate)
    ids = _ids_of_instances(stored, encoding)
    if ids.max(initial=0) > 255:
        raise UserError(f"{path}: instance value {stored.max()} is of no class: this is no {encoding} mask")
    return ids.astype(np.uint8)


def _ids_of_instances(values: np.ndarray, encoding: Encoding) -> np.ndarray:
    if encoding == "instance256":
        return values >> 8
    return np.where(values < 1000, values, values // 1000)


def _ids_of_colours(path: Path, colours: np.ndarray, raw: RawLabels, tolerate: int) -> np.ndarray:
    table, nothing = _colour_table(tuple(sorted((colour, i) for i, colour in raw.colours.items())))
    packed, lengths = _runs(_packed(colours))
    ids = table[packed]
    strange = ids == nothing
    if (total := int(lengths[strange].sum())) > tolerate:
        found, which = np.unique(packed[strange], return_inverse=True)
        counts = np.bincount(which, weights=lengths[strange]).astype(np.int64)
        rows = sorted(zip(counts.tolist(), found.tolist(), strict=True), reverse=True)
        named = ", ".join(f"({c >> 16}, {c >> 8 & 255}, {c & 255}) ({n} px)" for n, c in rows[:3])
        more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
        raise UserError(
            f"{path}: colour {named}{more} is not in the raw labels {raw.name}, {total} px in all: restore the mask; "
            "where the defect is known, allow so many pixels by the source's `tolerate`"
        )
    return np.repeat(ids, lengths).reshape(colours.shape[:2])


def _packed(colours: np.ndarray) -> np.ndarray:
    """uint8 HWC RGB -> uint32 HW, 0xRRGGBB."""
    words = cv2.cvtColor(colours, cv2.COLOR_RGB2BGRA).view("<u4")[..., 0]
    return np.bitwise_and(words, 0xFFFFFF, out=words)


def histogram(ids: np.ndarray) -> np.ndarray:
    """int64 [256]: how many pixels of uint8 HW ids have each value."""
    values, lengths = _runs(ids)
    return np.bincount(values, weights=lengths, minlength=256).astype(np.int64)


def _runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of HW pixels row by row: the value of each run of equal ones, and its length. A mask has few runs, so that what
    is done to each of them costs less than it would for each pixel."""
    flat = pixels.ravel()
    begins = np.ones(flat.size, bool)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    places = np.flatnonzero(begins)
    return flat[places], np.diff(places, append=flat.size)


@lru_cache(maxsize=2)
def _colour_table(rows: tuple[tuple[tuple[int, int, int], int], ...]) -> tuple[np.ndarray, int]:
    """uint8 [2**24], the id of each packed colour, and the id that stands for none."""
    nothing = next(i for i in range(255, -1, -1) if i not in {i for _, i in rows})
    table = np.full(1 << 24, nothing, np.uint8)
    for (r, g, b), raw_id in reversed(rows):  # of ids that share a colour the lowest
        table[r << 16 | g << 8 | b] = raw_id
    return table, nothing

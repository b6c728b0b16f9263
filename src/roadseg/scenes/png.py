"""Reading and writing the image files of a data set: what is broken in one is said in one line that names it."""

import re
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from roadseg.errors import UserError

# What Pillow raises on files that are truncated, corrupt, huge or no image at all.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_rgb(path: Path) -> np.ndarray:
    """uint8 HWC RGB 0-255. UserError where the file is unreadable or not 8-bit RGB."""
    return read(path, ("RGB",), "an 8-bit RGB image")


def read_ids(path: Path) -> np.ndarray:
    """uint8 HW ids, exactly as stored. UserError where the file is unreadable or not an 8-bit single-channel mask."""
    return read(path, ("L",), "an 8-bit mask of ids", exact=True)


def size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, from the file's head alone."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            return image.height, image.width
    except BROKEN as error:
        raise _broken(path, error) from None


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Writes uint8 HW ids as an 8-bit single-channel PNG."""
    Image.fromarray(ids).save(path, "PNG")


def read(path: Path, modes: tuple[str, ...], wanted: str, *, exact: bool = False) -> np.ndarray:
    """The pixels as stored, of a file in one of Pillow's `modes`; palette indices for mode P. EXIF turns nothing.

    UserError where the file is unreadable, of another mode or depth, or a JPEG where values must be `exact`; `wanted`
    says what was needed.
    """
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            image.verify()  # every checksum and the end mark: decoding alone lets some truncated files pass
        with Image.open(BytesIO(content)) as image:
            if exact and image.format == "JPEG":
                raise UserError(f"{path} is a JPEG, which changes values: {wanted} must be stored without loss")
            found = _held(image)
            if found in [f"mode {mode}" for mode in modes]:
                return np.asarray(image)
    except BROKEN as error:
        raise _broken(path, error) from None
    raise UserError(
        f"{path} has {found}, but {wanted} (mode {modes[0]}) is needed: convert it, or fetch the source again"
    )


def _held(image: Image.Image) -> str:
    """Pillow's mode, or the depth where Pillow makes 8 bits of another without a word (of id 1 in 4 bits, 17)."""
    bits = re.search(r";(\d+)", str(getattr(image, "tile", "")))  # as in RGB;16B
    return f"{bits[1]} bits a channel" if bits and image.mode in ("L", "RGB") else f"mode {image.mode}"


def _broken(path: Path, error: BaseException) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is missing: fetch the source again")
    reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
    return UserError(f"{path} cannot be read ({reason}): the file is broken, fetch the source again")

"""Reading and writing the image files of a data set: what is broken in one is said in one line that names it."""

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
    return read(path, ("L",), "an 8-bit mask of ids")


def size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, from the file's head alone."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except BROKEN as error:
        raise _broken(path, error) from None


def write_ids(path: Path, ids: np.ndarray) -> None:
    """Writes uint8 HW ids as an 8-bit single-channel PNG."""
    Image.fromarray(ids).save(path, "PNG")


def read(path: Path, modes: tuple[str, ...], wanted: str) -> np.ndarray:
    """The pixels as stored, of a file in one of Pillow's `modes`; palette indices for mode P.

    UserError where the file is unreadable, or of another mode; `wanted` says what was needed.
    """
    try:
        content = path.read_bytes()
        with Image.open(BytesIO(content)) as image:
            image.verify()  # every checksum and the end mark: decoding alone lets some truncated files pass
        with Image.open(BytesIO(content)) as image:
            if image.mode in modes:
                return np.asarray(image)
            found = image.mode
    except BROKEN as error:
        raise _broken(path, error) from None
    raise UserError(f"{path} has mode {found}, but {wanted} (mode {modes[0]}) is needed: fetch the source again")


def _broken(path: Path, error: BaseException) -> UserError:
    if isinstance(error, FileNotFoundError):
        return UserError(f"{path} is missing: fetch the source again")
    reason = "not an image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
    return UserError(f"{path} cannot be read ({reason}): the file is broken, fetch the source again")

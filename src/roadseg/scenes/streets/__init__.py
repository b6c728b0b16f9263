"""The embedded source `streets`: driving scenes drawn by our own code, in Cityscapes' classes and file layout.

A drive has one town, hour, weather and palette, and belongs to one split; its frames are a few metres apart. The same
settings give the same bytes: a drive depends on the seed, its split and its number alone, so more drives leave the
earlier ones as they are. All 19 training classes are in every split, the rare ones dealt to each drive.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from roadseg.config import Streets
from roadseg.scenes.streets.drive import Drive
from roadseg.scenes.streets.frame import draw_frame

SPLITS = ("train", "val", "test")


def draw(settings: Streets) -> Iterator[tuple[str, str, int, np.ndarray, np.ndarray]]:
    """Yield (split, drive, frame, image, ids), drive by drive.

    image: uint8 [height, width, 3] RGB 0-255. ids: uint8 [height, width], Cityscapes' labelIds 0-33 (void ones too).
    """
    for order, split in enumerate(SPLITS):
        for number in range(getattr(settings.drives, split)):
            drive = Drive(np.random.default_rng([settings.seed, order, number]), number, settings.scenes_per_drive)
            for frame in range(settings.scenes_per_drive):
                rng = np.random.default_rng([settings.seed, order, number, frame])
                image, ids = draw_frame(drive, frame, settings.height, settings.width, rng)
                yield split, f"{split}{number:03}", frame, image, ids


def write(settings: Streets, folder: Path) -> None:
    """Draw everything into `folder` in Cityscapes' layout, gtFine labelIds as 8-bit PNG.

    leftImg8bit/{split}/{drive}/{drive}_{seq:06}_{frame:06}_leftImg8bit.png, gtFine/.../..._gtFine_labelIds.png
    """
    total = settings.scenes_per_drive * sum(getattr(settings.drives, split) for split in SPLITS)
    for split, drive, frame, image, ids in track(draw(settings), description="drawing streets", total=total):
        for kind, suffix, pixels in (("leftImg8bit", "leftImg8bit", image), ("gtFine", "gtFine_labelIds", ids)):
            path = folder / kind / split / drive / f"{drive}_000000_{frame:06}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=6)

"""The embedded source `streets`: driving scenes drawn by our own code, in Cityscapes' classes and file layout.

A drive has one town, hour, weather and palette, and belongs to one split; its frames are a few metres apart. The same
settings give the same bytes: a drive depends on the seed, its split and its number alone, so more drives leave the
earlier ones as they are. All 19 training classes are in every split, the rare ones dealt to each drive.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from roadseg.bar import track
from roadseg.config import Streets
from roadseg.scenes.streets.drive import Drive
from roadseg.scenes.streets.frame import draw_frame

SPLITS = ("train", "val", "test")


Frame = tuple[str, str, int, np.ndarray, np.ndarray]
"""split, drive, frame; image uint8 [height, width, 3] RGB 0-255; ids uint8 [height, width], Cityscapes' labelIds 0-33
(void ones too)."""


def draw(settings: Streets) -> Iterator[Frame]:
    """Every frame, drive by drive."""
    for split, number in _drives(settings):
        yield from draw_drive(settings, split, number)


def draw_drive(settings: Streets, split: str, number: int) -> Iterator[Frame]:
    """The frames of one drive, which needs no other."""
    seed = [settings.seed, SPLITS.index(split), number]
    drive = Drive(np.random.default_rng(seed), number, settings.scenes_per_drive)
    for frame in range(settings.scenes_per_drive):
        rng = np.random.default_rng([*seed, frame])
        image, ids = draw_frame(drive, frame, settings.height, settings.width, rng)
        yield split, f"{split}{number:03}", frame, image, ids


def write(settings: Streets, folder: Path) -> None:
    """Draw everything into `folder` in Cityscapes' layout, gtFine labelIds as 8-bit PNG, a process a core.

    leftImg8bit/{split}/{drive}/{drive}_{seq:06}_{frame:06}_leftImg8bit.png, gtFine/.../..._gtFine_labelIds.png
    """
    drives = list(_drives(settings))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_write_drive, settings, split, number, folder) for split, number in drives]
        for job in track(as_completed(jobs), description="drawing streets", total=len(jobs)):
            job.result()


def _drives(settings: Streets) -> Iterator[tuple[str, int]]:
    return ((split, number) for split in SPLITS for number in range(getattr(settings.drives, split)))


def _write_drive(settings: Streets, split: str, number: int, folder: Path) -> None:
    for _, drive, frame, image, ids in draw_drive(settings, split, number):
        for kind, suffix, pixels in (("leftImg8bit", "leftImg8bit", image), ("gtFine", "gtFine_labelIds", ids)):
            path = folder / kind / split / drive / f"{drive}_000000_{frame:06}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, compress_level=6)

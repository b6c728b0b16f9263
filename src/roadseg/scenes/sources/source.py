"""What the line must know of a data set: where it comes from, its terms, the layout of its raw folder and masks."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from roadseg.config import Blocks
from roadseg.errors import UserError
from roadseg.labels import RawLabels
from roadseg.scenes.masks import Encoding

SPLITS = ("train", "val", "test")
OFFICIAL = "official"
"""The split that the official val becomes where `blocks` makes another: scored beside it, never chosen by."""


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
    frame: int | None = None
    """Its number within the sequence, where they count the frames of one video."""


@dataclass(frozen=True)
class Archive:
    """A file that a source is shipped as."""

    file: str
    page: str
    """Where a person finds it."""
    url: str | None = None
    """Where a program finds it; None where it must be fetched by hand."""
    root: str = ""
    """Folder inside the archive that becomes the raw folder."""
    into: str = ""
    """Folder under the raw folder that it is unpacked into."""
    wanted: str = ".+"
    """Regular expression: paths under `root` that are unpacked; the rest of the archive is left alone."""
    login: str | None = None
    """Whose account `url` asks for: a name from `roadseg.scenes.download.LOGINS`."""
    optional: bool = False
    """Whether the source is of use without it."""


@dataclass(frozen=True)
class Source:
    space: str
    """Its own label space, a table of roadseg/labels/spaces/."""
    scan: Callable[[Path], Iterator[RawScene]]
    """Raw folder -> its scenes, splits in order and names sorted. Raises UserError naming the file that is missing."""
    labels: Callable[[Path], RawLabels]
    """Raw folder -> what its masks hold."""
    licence: str
    masks: Encoding = "index"
    archives: tuple[Archive, ...] = ()
    """In the order in which they are unpacked; none where the scenes are drawn here."""
    straddling: dict[str, str] = field(default_factory=dict)
    """Sequences that the official splits themselves share, and why: validation waives them with this reason."""
    blocks: Blocks | None = None
    """How val is made anew; None leaves the official splits."""


def pairs(
    images: Iterable[Path],
    masks: Iterable[Path],
    image_key: Callable[[Path], str],
    mask_key: Callable[[Path], str],
    *,
    known: frozenset[str] = frozenset(),
) -> list[tuple[str, Path, Path]]:
    """(key, image, mask), sorted by key.

    Keys in `known` are defects of the source: what has no partner there is left out. Keys that look the same are the
    same, unless each finds its very own. Raises UserError naming a file without a partner, and two files of one key.
    """
    by_key: list[dict[str, Path]] = []
    for paths, key_of in ((images, image_key), (masks, mask_key)):
        found: dict[str, Path] = {}
        for path in sorted(paths):
            if (other := found.setdefault(key_of(path), path)) != path:
                raise UserError(f"{path} and {other} are both called {key_of(path)}: remove one")
        by_key.append(found)
    ours, theirs = by_key
    spelt = {normal(key): key for key in ours.keys() - theirs.keys()}
    for key in sorted(theirs.keys() - ours.keys()):
        if mine := spelt.pop(normal(key), None):  # a second one stays alone, and is named
            theirs[mine] = theirs.pop(key)
    for some, others, what in ((ours, theirs, "mask"), (theirs, ours, "image")):
        if lonely := sorted(some.keys() - others.keys() - known):
            raise UserError(
                f"{some[lonely[0]]} has no {what} ({len(lonely)} such): restore it, or fetch the source again"
            )
    return [(key, ours[key], theirs[key]) for key in sorted(ours.keys() & theirs.keys())]


def normal(name: str) -> str:
    """A name in one spelling: a Mac writes é as two characters, other systems as one."""
    return unicodedata.normalize("NFC", name)


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, stripped. UserError where it is no UTF-8."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows puts a mark before the first line
    except UnicodeDecodeError:
        raise UserError(f"{path} is no UTF-8 text: save it as such") from None
    return [line.strip() for line in text.splitlines() if line.strip()]

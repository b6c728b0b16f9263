"""Anyone's images and masks, described in params.yaml alone.

`images` and `masks` are patterns of paths under `root`. In a pattern {name} and {sequence} stand for parts of a path
(a {name} may hold slashes, a {sequence} not), `*` for any part of a file's or folder's name. An image and a mask with
the same {sequence} and {name} are a pair.
"""

import re
import zlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from roadseg.config import Folder, Split
from roadseg.errors import UserError
from roadseg.labels import VOID, RawLabels
from roadseg.scenes.sources.source import SPLITS, RawScene, Source, pairs

PARTS = {"{name}": r"(?P<name>.+)", "{sequence}": r"(?P<sequence>[^/]+)", "**": r".*", "*": r"[^/]*"}


def source(settings: Folder) -> Source:
    return Source(
        space=settings.space,
        scan=partial(scan, settings=settings),
        labels=lambda _: raw_labels(settings),
        licence=settings.licence,
        masks=settings.encoding,
        blocks=settings.blocks,
    )


def found(root: Path, pattern: str, key: str) -> dict[Path, re.Match[str]]:
    """The files under `root` that match a pattern, in order. UserError naming the key where there is none."""
    pieces = re.split(r"(\{name\}|\{sequence\}|\*\*|\*)", pattern)
    expression = re.compile("".join(PARTS.get(piece, re.escape(piece)) for piece in pieces))
    below = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    matches = {root / name: match for name in below if (match := expression.fullmatch(name))}
    if not matches:
        raise UserError(
            f"no file under {root} matches {pattern!r} (params.yaml, sources.folder.{key}): mend the pattern"
        )
    return matches


def files(settings: Folder, root: Path) -> list[Path]:
    """What belongs to the data set under the user's own folder: images, masks and the lists of splits."""
    listed = [root / name for name in settings.split.lists.values()]
    if lost := [path for path in listed if not path.is_file()]:
        raise UserError(f"{lost[0]} (params.yaml, sources.folder.split.lists) is not there: mend the path")
    return [*found(root, settings.images, "images"), *found(root, settings.masks, "masks"), *listed]


def scan(folder: Path, settings: Folder) -> Iterator[RawScene]:
    """The scenes, each in its split. UserError for an image or a mask without the other, and a scene in no split."""
    images, masks = found(folder, settings.images, "images"), found(folder, settings.masks, "masks")
    known = images | masks

    def key(path: Path) -> str:
        return "/".join(value for value in known[path].groupdict().values() if value)

    paired = pairs(images, masks, key, key)
    split_of = _splits(folder, settings, [(name, _sequence(known[image])) for name, image, _ in paired])

    def sequence(name: str, image: Path) -> str:
        """Without {sequence} each scene is its own; where frames are to be counted, all are one video."""
        return _sequence(known[image]) or ("all" if settings.blocks else name)

    scenes = [
        RawScene(split_of[name], name.replace("/", "_"), image, mask, sequence(name, image), _frame(known[image]))
        for name, image, mask in paired
    ]
    return iter(sorted(scenes, key=lambda scene: SPLITS.index(scene.split)))


def _sequence(match: re.Match[str]) -> str:
    return match.groupdict().get("sequence") or ""


def _frame(match: re.Match[str]) -> int | None:
    digits = re.search(r"(\d+)\D*$", match["name"])
    return int(digits[1]) if digits else None


def _splits(folder: Path, settings: Folder, scenes: list[tuple[str, str]]) -> dict[str, str]:
    """Name -> split, of (name, sequence): by lists, by named sequences, or by fractions."""
    rule = settings.split
    if rule.lists:
        return _by_list(folder, rule.lists, [name for name, _ in scenes])
    if rule.sequences:
        named = {sequence: split for split, sequences in rule.sequences.items() for sequence in sequences}
        if stray := sorted(named.keys() - {sequence for _, sequence in scenes}):
            raise UserError(f"params.yaml: sources.folder.split.sequences: there is no sequence {stray[0]!r}")
        return {name: named.get(sequence, "train") for name, sequence in scenes}
    return {name: _by_fraction(sequence or name, rule.fractions, rule.seed) for name, sequence in scenes}


def _by_fraction(group: str, fractions: Mapping[Split, float], seed: int) -> str:
    """The split of a whole sequence, by a hash of its name: it stays there whatever else is added."""
    place, edge = zlib.crc32(f"{seed}/{group}".encode()) / 2**32, 0.0
    for split, share in fractions.items():
        edge += share
        if place < edge:
            return split
    return split


def _by_list(folder: Path, lists: Mapping[Split, Path], names: list[str]) -> dict[str, str]:
    """Each line names a scene by its key, or by the end of its image's path, with or without the suffix."""
    split_of: dict[str, str] = {}
    for split, listing in lists.items():
        for line in filter(None, map(str.strip, (folder / listing).read_text(encoding="utf-8").splitlines())):
            words = [line, line.split()[0]]  # a list may name the mask as well, and a name may hold blanks
            hits = next((found for word in words if (found := _named(word, names))), [])
            if len(hits) != 1:
                raise UserError(
                    f"{folder / listing}: {line!r} names {len(hits)} scenes of sources.folder: it must be one"
                )
            if split_of.setdefault(hits[0], split) != split:
                raise UserError(
                    f"{folder / listing}: {line!r} is in {split_of[hits[0]]} as well: it must be in one split"
                )
    if left := [name for name in names if name not in split_of]:
        raise UserError(f"{left[0]} is in no list of sources.folder.split.lists ({len(left)} such): list or remove it")
    return split_of


def _named(word: str, names: list[str]) -> list[str]:
    """The scenes that a word of a list names."""
    word = word.replace("\\", "/")
    keys = {word, word.rsplit(".", 1)[0]}
    return [name for name in names if name in keys or any(key.endswith(f"/{name}") for key in keys)]


def raw_labels(settings: Folder) -> RawLabels:
    """What the masks hold, by the names of the label space's classes; ids of colours are given here, in order."""
    names: dict[int, str] = {}
    colours: dict[int, tuple[int, int, int]] = {}
    for name, values in {VOID: settings.void, **settings.classes}.items():
        for value in values:
            raw_id = value if isinstance(value, int) else len(names)
            if raw_id in names or value in colours.values():
                raise UserError(f"params.yaml: sources.folder.classes: {value} is of {name} and of another class")
            names[raw_id] = name
            if not isinstance(value, int):
                colours[raw_id] = value
    return RawLabels("folder", names, colours, speaks=settings.space)

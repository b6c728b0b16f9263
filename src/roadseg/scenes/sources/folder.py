"""Anyone's images and masks, described in params.yaml alone.

`images` and `masks` are patterns of paths under `root`. In a pattern {name} and {sequence} stand for parts of a path
(a {name} may hold slashes, a {sequence} not), `*` for any part of a file's or folder's name. An image and a mask with
the same {sequence} and {name} are a pair.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from roadseg.config import Folder, Split
from roadseg.errors import UserError
from roadseg.labels import VOID, RawLabels
from roadseg.scenes.sources.source import SPLITS, RawScene, Source, lines, normal, pairs

UNLISTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no line of text can hold: control characters, line breaks, bytes that are no UTF-8."""
NAMEABLE = 255
"""Ids of 8 bits, less the one that stands for a colour that nobody named."""
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
    """The files under `root` that match a pattern, in order. UserError naming the key where there is none, and a name
    that no list can hold."""
    expression = re.compile(_expression(pattern), re.DOTALL)
    below = (path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file())
    matches = {root / name: match for name in below if (match := expression.fullmatch(name))}
    if not matches:
        raise UserError(
            f"no file under {root} matches {pattern!r} (params.yaml, sources.folder.{key}): mend the pattern; folders "
            "that are links are not looked into"
        )
    if odd := [name for path in matches if UNLISTABLE.search(name := path.relative_to(root).as_posix())]:
        raise UserError(f"{root}: the name {odd[0]!r} has characters that no list can hold: rename it")
    return matches


def _expression(pattern: str) -> str:
    """The pattern as a regular expression; a part that comes twice must be the same both times."""
    found: list[str] = []
    seen: set[str] = set()
    for piece in re.split(r"(\{name\}|\{sequence\}|\*\*|\*)", pattern):
        found.append(f"(?P={piece[1:-1]})" if piece in seen else PARTS.get(piece, re.escape(piece)))
        seen |= {piece} & {"{name}", "{sequence}"}
    return "".join(found)


def files(settings: Folder, root: Path) -> list[Path]:
    """What belongs to the data set under the user's own folder: images, masks and the lists of splits."""
    listed = [root / name for name in settings.split.lists.values()]
    if lost := [path for path in listed if not path.is_file()]:
        raise UserError(f"{lost[0]} (params.yaml, sources.folder.split.lists) is not there: mend the path")
    images, masks = found(root, settings.images, "images"), found(root, settings.masks, "masks")
    if both := sorted(images.keys() & masks.keys()):
        raise UserError(f"{both[0]} is an image and a mask by params.yaml, sources.folder: mend `images` or `masks`")
    alone = found(root, settings.unlabelled, "unlabelled") if settings.unlabelled else {}
    return [*dict.fromkeys([*images, *masks, *alone]), *listed]


def scan(folder: Path, settings: Folder) -> Iterator[RawScene]:
    """The scenes, each in its split. UserError for an image or a mask without the other, and a scene in no split."""
    alone = found(folder, settings.unlabelled, "unlabelled") if settings.unlabelled else {}
    images, masks = found(folder, settings.images, "images"), found(folder, settings.masks, "masks")
    images = {path: match for path, match in images.items() if path not in alone}
    known = images | masks | alone

    def key(path: Path) -> str:
        parts = known[path].groupdict()
        return "/".join(filter(None, (parts.get("sequence"), parts["name"])))

    paired = pairs(images, masks, key, key)
    split_of = _splits(folder, settings, [(name, _sequence(known[image])) for name, image, _ in paired])

    def sequence(name: str, image: Path) -> str:
        """Without {sequence} each scene is its own; where frames are to be counted, all are one video."""
        return _sequence(known[image]) or ("all" if settings.blocks else name)

    scenes = [
        RawScene(split_of[name], name.replace("/", "_"), image, mask, sequence(name, image), _frame(known[image]))
        for name, image, mask in paired
    ]
    scenes += [
        RawScene("test", f"unlabelled_{key(image).replace('/', '_')}", image, None, sequence(key(image), image))
        for image in alone
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
        named: dict[str, str] = {}
        for split, sequences in rule.sequences.items():
            for sequence in sequences:
                if (other := named.setdefault(sequence, split)) != split:
                    raise UserError(
                        f"params.yaml: sources.folder.split.sequences: {sequence!r} is in {other} and in {split}: it "
                        "must be in one split"
                    )
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
    exact, alike = {name: [name] for name in names}, defaultdict[str, list[str]](list)
    for name in names:
        alike[normal(name)].append(name)
    for split, listing in lists.items():
        for line in lines(folder / listing):
            words = [line, line.split()[0]]  # a list may name the mask as well, and a name may hold blanks
            spelt = [(exact, words), (alike, [normal(word) for word in words])]
            hits = next((found for known, words in spelt for word in words if (found := _named(word, known))), [])
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


def _named(word: str, known: Mapping[str, list[str]]) -> list[str]:
    """The known scenes that a word of a list names."""
    word = word.replace("\\", "/")
    paths = [key.split("/") for key in (word, word.rsplit(".", 1)[0])]
    ends = ("/".join(parts[i:]) for parts in paths for i in range(len(parts)))
    return list(dict.fromkeys(name for end in ends for name in known.get(end, [])))


def raw_labels(settings: Folder) -> RawLabels:
    """What the masks hold, by the names of the label space's classes; ids of colours are given here, in order.

    UserError for a value that two classes have, and for one that masks of this encoding cannot hold.
    """
    coloured = settings.encoding == "colour"
    names: dict[int, str] = {}
    colours: dict[int, tuple[int, int, int]] = {}
    for name, values in {VOID: settings.void, **settings.classes}.items():
        for value in values:
            if isinstance(value, int) == coloured:
                what, hold = ("id", "colours") if coloured else ("colour", "ids")
                raise UserError(
                    f"params.yaml: sources.folder.classes: {name} has the {what} {value}, and masks of encoding "
                    f"{settings.encoding} hold {hold}"
                )
            raw_id = value if isinstance(value, int) else len(names)
            if raw_id in names or value in colours.values():
                raise UserError(f"params.yaml: sources.folder.classes: {value} is of {name} and of another class")
            names[raw_id] = name
            if not isinstance(value, int):
                colours[raw_id] = value
    if coloured and len(names) > NAMEABLE:
        raise UserError(
            f"params.yaml: sources.folder.classes: there are {len(names)} colours, and {NAMEABLE} can be told apart"
        )
    return RawLabels("folder", names, colours, speaks=settings.space)

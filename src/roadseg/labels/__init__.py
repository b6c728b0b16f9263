"""Label spaces: which classes there are, their colours, and how each kind of raw labels becomes train ids.

Owns the YAML tables beside this file. raw/ has what masks hold as they are shipped: ids, names, colours. spaces/ has
what networks are trained on: classes, and which raw names each of them takes; a table that is added there is a label
space, and DVC sees when it is edited. A train id is 0..C-1, `IGNORE` (255) is
void, and there is nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from roadseg.errors import UserError

IGNORE = 255
STRANGE = 254
"""What an id that no table has becomes for a moment; so a label space has 254 classes at most."""
VOID = "void"
"""How raw labels of a person's own call what is ignored; no class has this name."""
UNKNOWN = -1
"""In a look-up table: an id that the raw labels do not have."""

HERE = Path(__file__).parent
SPACES = HERE / "spaces"
RAW = ("camvid32", "cityscapes", "mapillary12", "mapillary20", "segnet11", "trainids19")

Colour = tuple[int, int, int]
"""R, G, B, 0-255."""


@dataclass(frozen=True)
class RawLabels:
    """What a source's masks hold: the name and the colour of each id 0..255."""

    name: str
    names: Mapping[int, str]
    colours: Mapping[int, Colour]
    speaks: str = ""
    """The label space whose classes the names are, where they are some: a person's own masks."""


@dataclass(frozen=True, eq=False)
class Table:
    """How raw labels are read in one label space."""

    raw: str
    space: str
    lut: np.ndarray
    """int16 [256]: the train id or 255 of each raw id; `UNKNOWN` where the raw labels have no such id."""
    lossy: tuple[str, ...]
    """One sentence per class that is not what its name says: several raw classes in one, or a raw one that mixes."""
    absent: tuple[str, ...]
    """Classes of the space that these labels can never show."""

    def remap(self, ids: np.ndarray, where: object, *, tolerate: int = 0) -> np.ndarray:
        """uint8 HW raw ids -> uint8 HW train ids, 255 = ignore.

        Up to `tolerate` pixels of ids outside of the table become void. For more, UserError with `where` (the file) and
        the values.
        """
        unknown = self.lut < 0
        train = cv2.LUT(ids, np.where(unknown, STRANGE, self.lut).astype(np.uint8))
        strange = train == STRANGE
        if (count := np.count_nonzero(strange)) > tolerate:
            values, counts = np.flatnonzero(unknown), np.bincount(ids.ravel(), minlength=256)[unknown]
            listed = ", ".join(f"{value} ({n} px)" for value, n in zip(values, counts, strict=True) if n)
            known = np.flatnonzero(~unknown)
            raise UserError(
                f"{where}: label id {listed} is not in the raw labels {self.raw} (ids {known.min()} to {known.max()}): "
                "restore the mask; where the defect is known, allow so many pixels by the source's `tolerate`"
            )
        if count:
            train[strange] = IGNORE
        return train


@dataclass(frozen=True)
class LabelSpace:
    """Classes in train-id order, and their display colours."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    readers: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict, compare=False)
    """Of each kind of raw labels: the raw names that a class takes. What no class takes is void."""
    mixed: Mapping[str, Mapping[str, str]] = field(default_factory=dict, compare=False)
    """Of each kind of raw labels: what a raw name holds beside the class that it becomes."""
    via: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict, compare=False)
    """Of another space: the classes of it that a class takes."""

    def table(self, raw: RawLabels) -> Table:
        """How `raw` is read in this space. UserError, with the raw labels that can be, where it cannot."""
        taken = self._taken(raw)
        class_of = {name: self.classes.index(class_) for class_, names in taken.items() for name in names}
        lut = np.full(256, UNKNOWN, np.int16)
        for raw_id, name in raw.names.items():
            lut[raw_id] = class_of.get(name, IGNORE)
        merged = (f"{class_} is {' + '.join(names)}" for class_, names in taken.items() if len(names) > 1)
        mixed = (f"{name} also holds {what}" for name, what in self.mixed.get(raw.name, {}).items())
        absent = tuple(name for name in self.classes if name not in taken)
        return Table(raw.name, self.name, lut, (*merged, *mixed), absent)

    def _taken(self, raw: RawLabels) -> Mapping[str, tuple[str, ...]]:
        """The names of `raw` that each class takes."""
        if raw.name in self.readers:
            return self.readers[raw.name]
        if raw.speaks not in (self.name, *self.via):
            known = ", ".join(sorted({*self.readers, *self.via}))
            what = f"raw labels {raw.name}" + (f", which speak {raw.speaks}" if raw.speaks else "")
            raise UserError(f"label space {self.name} cannot be made from {what}; it can from: {known}")
        theirs = self if raw.speaks == self.name else load(raw.speaks)
        if stray := sorted(set(raw.names.values()) - {VOID, *theirs.classes}):
            raise UserError(
                f"raw labels {raw.name}: {stray[0]!r} is no class of {theirs.name}: {', '.join(theirs.classes)}"
            )
        there = set(raw.names.values())
        classes = {name: (name,) for name in self.classes} if theirs is self else self.via[raw.speaks]
        taken = {mine: tuple(name for name in names if name in there) for mine, names in classes.items()}
        return {mine: names for mine, names in taken.items() if names}


@lru_cache
def raw(name: str) -> RawLabels:
    """The raw labels of that name, one of `RAW`."""
    ids = _yaml(HERE / "raw" / f"{name}.yaml")["ids"]
    return RawLabels(name, {i: row[0] for i, row in ids.items()}, {i: tuple(row[1]) for i, row in ids.items()})


@lru_cache
def load(name: str) -> LabelSpace:
    """The label space spaces/NAME.yaml. UserError with the names that there are for any other, and for a file that is
    no label space."""
    known = {path.stem: path for path in sorted(SPACES.glob("*.yaml"))}
    if name not in known:
        raise UserError(
            f"label space {name!r} is unknown (data.space in params.yaml); valid: {', '.join(known)}, or add "
            f"{SPACES / name}.yaml"
        )
    return _space(known[name])


def _space(path: Path) -> LabelSpace:
    content = _yaml(path)
    try:
        rows, given = content["classes"], content.get("from") or {}
        classes = tuple(str(row["name"]) for row in rows)
        if not 0 < len(classes) <= STRANGE or len(set(classes)) < len(classes):
            raise UserError(f"it has {len(classes)} classes, {len(set(classes))} of them different: 1 to {STRANGE}")
        colours: tuple[Colour, ...] = tuple(tuple(int(value) for value in row["colour"]) for row in rows)  # type: ignore[misc]
        via = {s: {m: tuple(ts) for m, ts in taken.items()} for s, taken in (content.get("via") or {}).items()}
        mixed = dict(content.get("mixed") or {})
        space = LabelSpace(str(content["name"]), classes, colours, _readers(content), mixed, via)
        _check(space, {kind: given[kind] for kind in given})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is no label space ({type(error).__name__}: {error}): see {SPACES}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return space


def _readers(content: dict[str, Any]) -> dict[str, dict[str, tuple[str, ...]]]:
    """From the raw labels that the space names itself, and from those that a space of its `via` can read."""
    order = [row["name"] for row in content["classes"]]
    readers: dict[str, dict[str, tuple[str, ...]]] = {}
    for between, taken in (content.get("via") or {}).items():
        for kind, theirs in load(between).readers.items():
            names = {mine: tuple(n for c in classes for n in theirs.get(c, ())) for mine, classes in taken.items()}
            readers[kind] = {mine: found for mine, found in names.items() if found}
    for kind, taken in (content.get("from") or {}).items():
        readers[kind] = {mine: tuple(str(name) for name in names) for mine, names in taken.items()}
    for kind, taken in readers.items():
        if stray := sorted(set(taken) - set(order)):
            raise UserError(f"from {kind}: {stray[0]!r} is none of its classes")
    return {kind: {name: taken[name] for name in order if name in taken} for kind, taken in readers.items()}


def _check(space: LabelSpace, given: dict[str, Any]) -> None:
    """What a look-up table needs: raw names that exist and are taken once."""
    for kind in given:
        names = [name for taken in space.readers[kind].values() for name in taken]
        known = set(raw(kind).names.values()) if kind in RAW else set(names)
        if stray := sorted(set(names) - known):
            raise UserError(f"from {kind}: raw labels {kind} have no {stray[0]!r}")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UserError(f"from {kind}: {twice[0]!r} is taken by two classes")


def _yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no table: see {SPACES}")
    return content

"""Label spaces: which classes there are, their colours, and how each source's raw ids become train ids.

Owns the YAML tables beside this file. A train id is 0..C-1, `IGNORE` (255) is void, and there is nothing else.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from roadseg.errors import UserError

IGNORE = 255
VOID = "void"
"""How the tables call what is ignored; no class has this name."""

SPACES: dict[str, str] = {"camvid11": "camvid11.yaml", "cityscapes19": "cityscapes19.yaml"}


@dataclass(frozen=True, eq=False)
class SourceTable:
    """One source's raw ids in one label space."""

    source: str
    space: str
    lut: np.ndarray
    """int16 [256]: the train id or 255 of each raw id; -1 where the table has no such id."""
    lossy: tuple[str, ...]
    """One sentence per class that is not what its name says: several raw classes in one, or a raw class that mixes."""
    absent: tuple[str, ...]
    """Classes of the space that this source can never show."""

    def remap(self, ids: np.ndarray, where: object) -> np.ndarray:
        """uint8 HW raw ids -> uint8 HW train ids, 255 = ignore. An id outside of the table is a UserError that names
        `where` (the file) and the value."""
        train_ids = self.lut[ids]
        if (train_ids < 0).any():
            unknown, counts = np.unique(ids[train_ids < 0], return_counts=True)
            values = ", ".join(f"{value} ({count} px)" for value, count in zip(unknown, counts, strict=True))
            known = np.flatnonzero(self.lut >= 0)
            raise UserError(
                f"{where}: label id {values} is not in {self.source}'s table for {self.space} "
                f"(ids {known.min()} to {known.max()}): restore the mask, or add the id to labels/{self.space}.yaml"
            )
        return train_ids.astype(np.uint8)


@dataclass(frozen=True)
class LabelSpace:
    """Classes in train-id order, and their display colours (RGB, 0-255)."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]

    def table(self, source: str) -> SourceTable:
        """How `source` is read in this space. UserError, with the sources that can be, where it cannot."""
        tables = _read(self.name)["sources"]
        if source not in tables:
            raise UserError(f"label space {self.name} has no table for source {source!r}; it has: {', '.join(tables)}")
        ids: dict[int, list[str]] = tables[source]["ids"]
        lut = np.full(256, -1, np.int16)
        raw_names: dict[str, list[str]] = defaultdict(list)
        for raw_id, (raw_name, name) in ids.items():
            lut[raw_id] = IGNORE if name == VOID else self.classes.index(name)
            raw_names[name].append(raw_name)
        merged = (f"{name} is {' + '.join(raw_names[name])}" for name in self.classes if len(raw_names[name]) > 1)
        mixed = (f"{raw_name} also holds {what}" for raw_name, what in tables[source].get("mixed", {}).items())
        absent = tuple(name for name in self.classes if name not in raw_names)
        return SourceTable(source, self.name, lut, (*merged, *mixed), absent)


def load(name: str) -> LabelSpace:
    """The label space of that name. UserError with the valid names for any other."""
    if name not in SPACES:
        raise UserError(f"label space {name!r} is unknown (data.space in params.yaml); valid: {', '.join(SPACES)}")
    rows = _read(name)["classes"]
    return LabelSpace(name, tuple(row["name"] for row in rows), tuple(tuple(row["colour"]) for row in rows))


@lru_cache
def _read(name: str) -> dict[str, Any]:
    """The YAML table, as it is written."""
    table: dict[str, Any] = yaml.safe_load((Path(__file__).parent / SPACES[name]).read_text(encoding="utf-8"))
    return table

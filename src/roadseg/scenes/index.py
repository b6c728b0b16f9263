"""The list of a remapped source's scenes: data/remapped/SOURCE/index.csv.

Images stay where fetch put them; only masks were written anew. Every later stage reads these lists, never a folder.
"""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError


@dataclass(frozen=True)
class Scene:
    """A row of index.csv. Paths are relative to the project's root."""

    split: str
    """train, val or test."""
    image: Path
    """8-bit RGB PNG, under data/raw."""
    label: Path | None
    """8-bit PNG of train ids, 255 = ignore; None where the split is unlabelled."""
    height: int
    """Of the label (of the image where there is none), pixels."""
    width: int
    sequence: str
    """The drive that the scene is from."""
    label_sha256: str
    """Of the label's file; empty where there is none."""


HEADER = [field.name for field in fields(Scene)]


def index_path(source: str) -> Path:
    return paths.REMAPPED / source / "index.csv"


def write_index(path: Path, scenes: Iterable[Scene]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        for scene in scenes:
            label = scene.label.as_posix() if scene.label else ""
            writer.writerow(asdict(scene) | {"image": scene.image.as_posix(), "label": label})


def read_index(path: Path) -> list[Scene]:
    """The scenes of one index.csv, in its order. UserError where the file is missing or is no index."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run the remap stage of this source first")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != HEADER:
            raise UserError(f"{path}: its header is {reader.fieldnames}, not {HEADER}: run the remap stage again")
        return [
            Scene(
                split=row["split"],
                image=Path(row["image"]),
                label=Path(row["label"]) if row["label"] else None,
                height=int(row["height"]),
                width=int(row["width"]),
                sequence=row["sequence"],
                label_sha256=row["label_sha256"],
            )
            for row in reader
        ]


def labelled(config: Config, split: str) -> list[Scene]:
    """The labelled scenes of one split, of every source of data.sources in that order."""
    scenes = (scene for source in config.data.sources for scene in read_index(index_path(source)))
    return [scene for scene in scenes if scene.split == split and scene.label]

"""The list of a remapped source's scenes: data/remapped/SOURCE/index.csv.

Images stay where fetch put them; only masks were written anew. Every later stage reads these lists, never a folder.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError


@dataclass(frozen=True)
class Scene:
    """A row of index.csv. Paths are relative to the project's root."""

    split: str
    """train, val, test, or `OFFICIAL` (roadseg.scenes.sources); what `of_run` returns may be `ELSEWHERE` too."""
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
    image_sha256: str
    """Of the image's file."""


ELSEWHERE = "elsewhere"
"""The split of the scenes that a run scores out of its domain: of sources that it never trains on."""
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
                image_sha256=row["image_sha256"],
            )
            for row in reader
        ]


def of_run(config: Config) -> Iterator[tuple[str, Scene]]:
    """(source, scene) of data.sources in their order, each in the split that it has in this run.

    Of a source that is never trained on, val is `ELSEWHERE`, or where val has no labels every labelled scene; its other
    labelled scenes have no part in the run and are left out.
    """
    for source in config.data.sources:
        scenes = read_index(index_path(source))
        if source in config.data.trained:
            yield from ((source, scene) for scene in scenes)
            continue
        splits = {scene.split for scene in scenes if scene.label}
        scored = {"val"} if "val" in splits else splits
        for scene in scenes:
            if scene.label is None or scene.split in scored:
                yield source, replace(scene, split=ELSEWHERE) if scene.label else scene


def labelled(config: Config, split: str) -> list[Scene]:
    """The labelled scenes that are in this split of the run, of every source of data.sources in that order."""
    return [scene for _, scene in of_run(config) if scene.split == split and scene.label]


def unlabelled(config: Config, most: int | None) -> list[tuple[str, Scene]]:
    """(source, scene) of data.sources without labels: at most so many of each source, spread over it; None is all."""
    by_source: dict[str, list[Scene]] = {source: [] for source in config.data.sources}
    for source, scene in of_run(config):
        if scene.label is None:
            by_source[source].append(scene)
    chosen = []
    for source, scenes in by_source.items():
        count = len(scenes) if most is None else min(most, len(scenes))
        chosen += [(source, scenes[i * len(scenes) // count]) for i in range(count)]
    return chosen

"""remap@SOURCE: raw masks become train-id masks of the run's label space, and the scenes get their list.

Reads data/raw/SOURCE/ and the label tables; writes data/remapped/SOURCE/: labels/SPLIT/NAME.png (8-bit, train ids, 255)
and index.csv. Images stay where they are, and labels keep their own resolution. A mask that was remapped before, by the
same tables, is taken from .state/remapped/: of an old scene the files are read, and no mask is decoded.
"""

import hashlib
import json
import shutil
import threading
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.labels import RawLabels, Table
from roadseg.scenes import masks, png, sources
from roadseg.scenes.index import Scene, write_index
from roadseg.scenes.masks import Encoding
from roadseg.scenes.parallel import in_threads
from roadseg.scenes.sources import RawScene
from roadseg.stages.stage import stage

FORMAT = 2
"""Raise it when what is written changes: the kept masks are then made anew."""


def run(config: Config, source: str) -> None:
    """Writes a source's train-id masks and index. UserError naming the first file that is broken, of another size than
    its image, or that holds an id which the table lacks."""
    space, what = sources.space_of(config), sources.get(config, source)
    with stage("remap", source) as running:
        if not (paths.RAW / source).is_dir():
            raise UserError(f"{paths.RAW / source} is not there: run `roadseg fetch {source}` first")
        final = paths.REMAPPED / source
        folder = running.folder(final)
        raw_labels = what.labels(paths.RAW / source)
        table = space.table(raw_labels)
        raw = sources.scenes(what, paths.RAW / source)
        _refuse_same_names(raw)
        for split in sorted({scene.split for scene in raw}):
            (folder / "labels" / split).mkdir(parents=True)
        tolerate = getattr(getattr(config.sources, source), "tolerate", 0)
        remapper = Remapper(what.masks, raw_labels, table, tolerate, folder, final)
        scenes = in_threads(remapper, raw, f"remap {source}")
        write_index(folder / "index.csv", scenes)
    counts = Counter(scene.split for scene in scenes)
    made = sum(remapper.made)
    print(f"{source} in {space.name}: " + ", ".join(f"{counts[split]} {split}" for split in sources.SPLITS))
    if what.blocks:
        print(f"  {source}-{sources.blocks.described(list(what.scan(paths.RAW / source)), raw)}")
    print(f"  {made} masks remapped, {sum(1 for scene in scenes if scene.label) - made} kept from before")
    for sentence in table.lossy:
        print(f"  lossy: {sentence}")
    if table.absent:
        print(f"  never in {source}: {', '.join(table.absent)}")


def _refuse_same_names(scenes: list[RawScene]) -> None:
    """Two scenes of one name would write the same mask."""
    seen: dict[tuple[str, str], Path] = {}
    for scene in scenes:
        if other := seen.get((scene.split, scene.name)):
            raise UserError(f"{scene.image} and {other} have the same name in split {scene.split}: rename one")
        seen[scene.split, scene.name] = scene.image


@dataclass(frozen=True)
class Remapper:
    """Remaps one scene: called with a RawScene, it writes the mask and returns the index's row."""

    encoding: Encoding
    raw: RawLabels
    table: Table
    tolerate: int
    folder: Path
    """Where the output is built."""
    final: Path
    """Where it will be."""
    made: list[bool] = field(default_factory=list)
    """A True for each mask that was not kept from before."""

    @cached_property
    def store(self) -> Path:
        """Where masks that these tables made are kept, by the SHA-256 of the raw file."""
        colours = sorted(self.raw.colours.items()) if self.encoding == "colour" else []
        names = sorted(self.raw.names.items())
        parts = [FORMAT, self.encoding, names, colours, self.table.lut.tolist(), self.tolerate]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        store = paths.state("remapped", key)
        store.mkdir(exist_ok=True)
        return store

    def __call__(self, scene: RawScene) -> Scene:
        height, width = png.size(scene.image)
        image = _sha256(scene.image)
        if scene.label is None:
            return Scene(scene.split, scene.image, None, height, width, scene.sequence, "", image)
        mask = self._mask(scene.label)
        if png.size(mask) != (height, width):
            label_height, label_width = png.size(mask)
            raise UserError(
                f"{scene.label} is {label_width}x{label_height} but its image {scene.image} is {width}x{height}: "
                "restore the pair, or fetch the source again"
            )
        place = Path("labels", scene.split, f"{scene.name}.png")
        shutil.copyfile(mask, self.folder / place)
        return Scene(scene.split, scene.image, self.final / place, height, width, scene.sequence, _sha256(mask), image)

    def _mask(self, label: Path) -> Path:
        """The remapped mask in the store, made first where it is not there yet."""
        kept = self.store / f"{_sha256(label)}.png"
        if not kept.exists():
            ids = masks.read(label, self.encoding, self.raw, tolerate=self.tolerate)
            aside = kept.with_name(f"{kept.stem}.{threading.get_ident()}")
            png.write_ids(aside, self.table.remap(ids, label, tolerate=self.tolerate))
            aside.replace(kept)
            self.made.append(True)
        return kept


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): fetch the source again") from None

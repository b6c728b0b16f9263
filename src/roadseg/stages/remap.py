"""remap@SOURCE: raw masks become train-id masks of the run's label space, and the scenes get their list.

Reads data/raw/SOURCE/ and the label tables; writes data/remapped/SOURCE/: labels/SPLIT/NAME.png (8-bit, train ids, 255)
and index.csv. Images stay where they are.
"""

import hashlib
from collections import Counter
from functools import partial
from pathlib import Path

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.labels import SourceTable
from roadseg.scenes import png, sources
from roadseg.scenes.index import Scene, write_index
from roadseg.scenes.parallel import in_threads
from roadseg.scenes.sources import RawScene
from roadseg.stages.stage import stage


def run(config: Config, source: str) -> None:
    """Writes a source's train-id masks and index. UserError naming the first file that is broken, of another size than
    its image, or that holds an id which the table lacks."""
    space = sources.space_of(config)
    table = space.table(source)
    with stage("remap", source) as running:
        final = paths.REMAPPED / source
        folder = running.folder(final)
        raw = list(sources.get(source).scan(paths.RAW / source))
        _refuse_same_names(raw)
        for split in sources.SPLITS:
            (folder / "labels" / split).mkdir(parents=True)
        scenes = in_threads(partial(_remap, table=table, folder=folder, final=final), raw, f"remap {source}")
        write_index(folder / "index.csv", scenes)
    counts = Counter(scene.split for scene in scenes)
    print(f"{source} in {space.name}: " + ", ".join(f"{counts[split]} {split}" for split in sources.SPLITS))
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


def _remap(raw: RawScene, table: SourceTable, folder: Path, final: Path) -> Scene:
    height, width = png.size(raw.image)
    if raw.label is None:
        return Scene(raw.split, raw.image, None, height, width, raw.sequence, "")
    ids = png.read_ids(raw.label)
    if ids.shape != (height, width):
        raise UserError(
            f"{raw.label} is {ids.shape[1]}x{ids.shape[0]} but its image {raw.image} is {width}x{height}: "
            "restore the pair, or fetch the source again"
        )
    place = Path("labels", raw.split, f"{raw.name}.png")
    png.write_ids(folder / place, table.remap(ids, raw.label))
    digest = hashlib.sha256((folder / place).read_bytes()).hexdigest()
    return Scene(raw.split, raw.image, final / place, height, width, raw.sequence, digest)

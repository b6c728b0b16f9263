"""What data is there, source by source: scenes of each split, labelled or not, sizes, terms.

Reads data/raw/SOURCE/ of every source that was fetched; prints a table. What is wrong with a source is said in its row.
"""

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import png, sources
from roadseg.scenes.parallel import in_threads
from roadseg.scenes.sources import RawScene


def run(config: Config) -> None:
    """Prints the table. Sources that data.sources names are marked by a star."""
    table = Table(title="data", title_justify="left", caption="* in data.sources", caption_justify="left")
    for column in ("source", "train", "val", "test", "sizes", "terms"):
        table.add_column(column, overflow="fold", justify="right" if column in sources.SPLITS else "left")
    for name in sources.SOURCES:
        star = "*" if name in config.data.sources else ""
        table.add_row(f"{name}{star}", *row(config, name))
    Console().print(table)


def row(config: Config, name: str) -> tuple[str, str, str, str, str]:
    """Scenes of train, val and test, their sizes, the terms; or what is the matter, in place of the sizes."""
    try:
        source = sources.get(config, name)
        if not (paths.RAW / name).is_dir():
            return "", "", "", f"not fetched: roadseg fetch {name}", source.licence
        scenes = sources.scenes(source, paths.RAW / name)
    except UserError as error:
        return "", "", "", str(error), ""
    return *(split(scenes, one) for one in sources.SPLITS), sizes(scenes), source.licence  # type: ignore[return-value]


def split(scenes: Sequence[RawScene], name: str) -> str:
    """How many scenes a split has, and how many of them are not labelled, where some are not."""
    labelled = Counter(scene.label is not None for scene in scenes if scene.split == name)
    beside = sum(scene.split == sources.OFFICIAL for scene in scenes) if name == "val" else 0
    notes = [f"{labelled[False]} unlabelled"] * bool(labelled[False]) + [f"{beside} official beside"] * bool(beside)
    return f"{labelled.total()}" + (f" ({', '.join(notes)})" if notes else "")


def sizes(scenes: Sequence[RawScene]) -> str:
    """The commonest image size, and how many others there are: WIDTHxHEIGHT."""
    found = Counter(in_threads(lambda scene: png.size(scene.image), scenes, "sizes"))
    if not found:
        return ""
    (height, width), _ = found.most_common(1)[0]
    return f"{width}x{height}" + (f" and {len(found) - 1} others" if len(found) > 1 else "")

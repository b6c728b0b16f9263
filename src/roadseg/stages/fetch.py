"""fetch@SOURCE: puts a source's files, as the source ships them, under data/raw/SOURCE/, or draws them there.

Reads archives by hand, from a mirror or from the official address (`roadseg.scenes.download`); writes data/raw/SOURCE/,
checked against the source's own lists and the numbers of scenes in params.yaml.
"""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from roadseg import paths
from roadseg.config import Config, Folder, Shipped
from roadseg.errors import UserError
from roadseg.scenes import archive, download, sources, streets
from roadseg.scenes.sources import Source
from roadseg.stages.stage import stage

DRAWN: dict[str, Callable[[Config, Path], None]] = {
    "streets": lambda config, folder: streets.write(config.sources.streets, folder),
}


def run(config: Config, source: str) -> None:
    """Fills data/raw/SOURCE. UserError where an archive is missing, broken, or does not hold what it lists."""
    what = sources.get(config, source)
    settings = getattr(config.sources, source)
    with stage("fetch", source) as running:
        folder = running.folder(paths.RAW / source)
        if source in DRAWN:
            DRAWN[source](config, folder)
            origin = "what was drawn"
        elif isinstance(settings, Folder):
            origin = str(_link(settings, folder))
        else:
            origin = _unpack(config, source, what, settings, folder)
        try:
            counts = Counter(scene.split for scene in what.scan(folder))
            sources.space_of(config).table(what.labels(folder))
        except UserError as error:  # said of the place where it will be, and of where it came from
            raise UserError(f"{origin}: {error}".replace(f"{folder}/", "")) from None
        if isinstance(settings, Shipped | Folder):
            _compare(source, settings, counts, origin)
    print(f"{source}: " + ", ".join(f"{counts[split]} {split}" for split in sources.SPLITS) + f"; {what.licence}")


def _unpack(config: Config, name: str, source: Source, settings: Shipped, folder: Path) -> str:
    """Unpacks the source's archives into `folder`, and says where they were."""
    downloads = paths.state("downloads", name)
    found = download.get(name, source, settings, config.data.mirror_address(), downloads)
    for what, path in found:
        try:
            archive.unpack(path, what, folder)
        except UserError as error:
            raise UserError(f"{error}{download.forget(path)}") from None
    return ", ".join(str(path) for _, path in found)


def _link(settings: Folder, folder: Path) -> Path:
    """Links a person's own files into `folder`, and returns where they are."""
    root = paths.of_home(settings.root)
    if not root.is_dir():
        raise UserError(f"{root} (params.yaml, sources.folder.root) is no folder: mend the path")
    for path in sources.folder.files(settings, root):
        place = folder / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())  # so that a file that is replaced is seen, by DVC too
        if not os.access(place, os.R_OK):
            raise UserError(f"{path} cannot be read: make it readable")
    return root


def _compare(source: str, settings: Shipped | Folder, counts: Counter[str], origin: str) -> None:
    """Refuses another number of scenes than params.yaml expects."""
    for split, expected in (settings.expect or {}).items():
        if counts[split] != expected:
            raise UserError(
                f"{origin}: {counts[split]} {split} scenes instead of {expected} (params.yaml, "
                f"sources.{source}.expect.{split}): get the whole archive, or correct the number; `expect: {{}}` takes "
                "what is there"
            )
    if not sum(counts.values()):
        raise UserError(f"{origin}: holds no scene of {source}: fetch it again")

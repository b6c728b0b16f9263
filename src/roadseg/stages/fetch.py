"""fetch@SOURCE: puts a source's files, as the source ships them, under data/raw/SOURCE/, or draws them there.

Reads an archive's path, a mirror or the official address (`roadseg.scenes.download`); writes data/raw/SOURCE/, checked
against the archive's own lists.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from roadseg import paths
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import download, sources, streets
from roadseg.stages.stage import stage

DRAWN: dict[str, Callable[[Config, Path], None]] = {
    "streets": lambda config, folder: streets.write(config.sources.streets, folder),
}


def run(config: Config, source: str) -> None:
    """Fills data/raw/SOURCE. UserError where the archive is missing, broken, or does not hold what it lists."""
    what = sources.get(source)
    with stage("fetch", source) as running:
        folder = running.folder(paths.RAW / source)
        if source in DRAWN:
            DRAWN[source](config, folder)
            origin = "what was drawn"
        else:
            origin = str(_unpack(config, source, folder))
        try:
            counts = Counter(scene.split for scene in what.scan(folder))
        except UserError as error:  # said of the place where it will be, and of where it came from
            raise UserError(f"{origin}: {error}".replace(f"{folder}/", "")) from None
    print(f"{source}: " + ", ".join(f"{counts[split]} {split}" for split in sources.SPLITS) + f"; {what.licence}")


def _unpack(config: Config, source: str, folder: Path) -> Path:
    """Unpacks the source's archive, which it returns, into `folder`."""
    by_hand: Path | None = getattr(config.sources, source).archive
    downloads = paths.state("downloads", source)
    archive = download.archive_of(source, sources.SOURCES[source], by_hand, config.data.mirror_address(), downloads)
    download.unpack(archive, sources.SOURCES[source], folder)
    return archive

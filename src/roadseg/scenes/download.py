"""Getting a source's archive onto this machine, and its wanted files out of it.

An archive fetched by hand comes before a mirror, and a mirror before the official address. A download takes its name
only when it is complete; nothing is unpacked from an archive that would write outside of its folder.
"""

import hashlib
import logging
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pooch
import requests
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn, track

from roadseg import paths
from roadseg.errors import UserError
from roadseg.scenes.sources import Source

TIMEOUT_S = 30.0  # without a byte, not in all


def archive_of(name: str, source: Source, by_hand: Path | None, mirror: str | None, downloads: Path) -> Path:
    """The archive's path on this machine, downloaded into `downloads` where it is not here yet.

    Raises:
        UserError: there is no such archive; says which file is needed, from which page, and where to put it.
    """
    help_ = f"download {source.archive} from {source.page} and name its path in params.yaml, sources.{name}.archive"
    if by_hand is not None:
        given = paths.of_home(by_hand)
        if not given.is_file():
            raise UserError(f"{by_hand} (params.yaml, sources.{name}.archive) is not there: {help_}")
        return given
    if mirror is None:
        return _download(str(source.url), downloads, help_)
    if re.match(r"https?://", mirror):
        return _download(f"{mirror.rstrip('/')}/{name}/{source.archive}", downloads, help_)
    path = paths.of_home(Path(mirror)) / name / str(source.archive)
    if not path.is_file():
        raise UserError(f"{path} is not there (ROADSEG_MIRROR, or params.yaml, data.mirror): put it there, or {help_}")
    return path


def _download(url: str, downloads: Path, help_: str) -> Path:
    """Downloads what is not here yet. Kept by address: a mirror's small archive is never taken for the official one."""
    folder = downloads / hashlib.sha256(url.encode()).hexdigest()[:12]
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        with _bar(url) as bar:
            downloader = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_S)
            path = Path(pooch.retrieve(url, None, PurePosixPath(url).name, folder, downloader=downloader))
    except requests.HTTPError as error:
        said = f"{error.response.status_code} {error.response.reason}" if error.response is not None else str(error)
        raise UserError(f"{url} answers {said}: {help_}") from None
    except (requests.RequestException, OSError) as error:
        raise UserError(f"{url} could not be downloaded ({type(error).__name__}): try again, or {help_}") from None
    if not zipfile.is_zipfile(path):
        path.unlink()
        raise UserError(f"{url} gave no zip, or only a part of one: try again, or {help_}")
    return path


class _Bar:
    """What pooch asks of a progress bar, drawn by rich."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._task = progress.add_task(name, total=None)
        self.total = 0

    def update(self, n: int) -> None:
        self._progress.update(self._task, advance=n, total=self.total or None)

    def reset(self) -> None:
        self._progress.reset(self._task)

    def close(self) -> None:
        self._progress.refresh()


@contextmanager
def _bar(url: str) -> Iterator[_Bar]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns) as progress:
        yield _Bar(progress, PurePosixPath(url).name)


def unpack(archive: Path, source: Source, folder: Path) -> None:
    """Writes the wanted files under `source.root` of a zip to `folder`.

    Raises:
        UserError: no zip, a broken one, one that would write outside of `folder`, or one with nothing wanted inside.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            members = {path: info for info in file.infolist() if (path := _wanted(info, source, archive))}
            if not members:
                raise UserError(f"{archive} holds nothing of {source.root}/: get {source.archive} from {source.page}")
            for path, info in track(members.items(), description=f"unpack {archive.name}"):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as packed, target.open("wb") as plain:
                    shutil.copyfileobj(packed, plain)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} is no zip, or a broken one ({error}): delete it and fetch it again") from None


def _wanted(info: zipfile.ZipInfo, source: Source, archive: Path) -> str | None:
    """Where under the folder this member goes; None where it is not wanted."""
    path = PurePosixPath(info.filename)
    if path.is_absolute() or ".." in path.parts or "\\" in info.filename or stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{archive}: its member {info.filename!r} would leave the folder: do not trust this archive")
    relative = info.filename.removeprefix(f"{source.root}/")
    return relative if relative != info.filename and re.fullmatch(source.wanted, relative) else None

"""Getting a source's archives onto this machine.

What was fetched by hand comes before a mirror, and a mirror before the official address. A download that was cut goes
on where it was; it takes its name only when it is complete.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urljoin

import pooch
import requests
import urllib3
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from roadseg import paths
from roadseg.bar import Minute
from roadseg.config import Shipped
from roadseg.errors import UserError, one_line
from roadseg.scenes import archive as archives
from roadseg.scenes.sources.source import Archive, Source

TIMEOUT_S = 30.0  # without a byte, not in all
TRIES = 3
BLOCK = 1 << 20  # bytes


def get(
    name: str, source: Source, settings: Shipped, mirror: str | None, downloads: Path
) -> list[tuple[Archive, Path]]:
    """The source's archives on this machine, downloaded into `downloads` where they are not here yet.

    An optional archive that is not to be had is left out. Raises UserError for any other: says which file is needed,
    from which page, and where to put it; also where a checksum is not the one of params.yaml.
    """
    found = []
    for archive in source.archives:
        try:
            path = _find(name, source, archive, settings, mirror, downloads)
        except UserError as error:
            if not archive.optional:
                raise
            print(f"{name}: goes on without {archive.file}: {one_line(error)}")
            continue
        _check(name, archive, path, settings)
        found.append((archive, path))
    return found


def place(name: str, source: Source, archive: Archive, settings: Shipped, mirror: str | None) -> str | None:
    """Where the archive is looked for: a path or an http(s) address; None where it must be fetched by hand."""
    if settings.archive is not None:
        by_hand = paths.of_home(settings.archive)
        return str(by_hand / archive.file if by_hand.is_dir() or len(source.archives) > 1 else by_hand)
    if mirror is None:
        return archive.url
    if is_web(mirror):
        return f"{mirror.rstrip('/')}/{name}/{archive.file}"
    return str(paths.of_home(Path(mirror)) / name / archive.file)


def _find(name: str, source: Source, archive: Archive, settings: Shipped, mirror: str | None, downloads: Path) -> Path:
    what = "its path" if len(source.archives) == 1 else "its folder"
    help_ = f"download {archive.file} from {archive.page} and name {what} in params.yaml, sources.{name}.archive"
    where = place(name, source, archive, settings, mirror)
    if where is None:
        raise UserError(f"{archive.file} can only be had with an account: {help_}")
    if is_web(where):
        official = settings.archive is None and mirror is None
        return _download(where, archive, downloads, archive.login if official else None, help_)
    if Path(where).is_file():
        return Path(where)
    if settings.archive:
        raise UserError(f"{where} (params.yaml, sources.{name}.archive) is not there: {help_}")
    raise UserError(f"{where} is not there (ROADSEG_MIRROR, or params.yaml, data.mirror): put it there, or {help_}")


def is_web(place: str) -> bool:
    """Whether it is an address rather than a path."""
    return place.startswith(("http://", "https://"))


def _check(name: str, archive: Archive, path: Path, settings: Shipped) -> None:
    expected = settings.sha256.get(archive.file)
    if expected and (found := pooch.file_hash(str(path), alg="sha256")) != expected:
        gone = forget(path)
        raise UserError(
            f"{path} has SHA-256 {found}, not the one in sources.{name}.sha256 of params.yaml: fetch it again, or "
            f"correct the checksum{gone}"
        )


def forget(path: Path) -> str:
    """Removes an archive that is not what it should be, where it was downloaded, and says so; else says nothing."""
    if not path.is_relative_to(paths.state("downloads", "")):
        return ""
    path.unlink(missing_ok=True)
    return "; what was downloaded is removed"


def _download(url: str, archive: Archive, downloads: Path, login: str | None, help_: str) -> Path:
    """Downloads what is not here yet. Kept by address: a mirror's small archive is never taken for the official one."""
    folder = downloads / hashlib.sha256(url.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel(logging.WARNING)
    part = folder / f"{archive.file}.part"
    try:
        downloader = _Resuming(part, login)
        path = Path(pooch.retrieve(url, None, archive.file, folder, downloader=downloader))
    except requests.HTTPError as error:
        said = f"{error.response.status_code} {error.response.reason}" if error.response is not None else str(error)
        raise UserError(f"{url} answers {said}: {help_}") from None
    except (requests.RequestException, OSError) as error:
        kept = f" ({part.stat().st_size / 1e6:.0f} MB are kept)" if part.exists() else ""
        raise UserError(
            f"{url} could not be downloaded ({type(error).__name__}){kept}: try again, or {help_}"
        ) from None
    if not archives.is_archive(path):
        path.unlink()
        raise UserError(f"{url} gave no archive, or only a part of one: try again, or {help_}")
    return path


class _Resuming:
    """Pooch's downloader that keeps what came of a cut download, and asks for the rest alone."""

    def __init__(self, part: Path, login: str | None) -> None:
        self.part = part
        self.login = login

    def __call__(self, url: str, output_file: str, pooch_: object) -> None:
        with requests.Session() as session, _bar() as progress:
            if self.login:
                LOGINS[self.login](session, url)
            task = progress.add_task(self.part.name.removesuffix(".part"), total=None)
            for left in range(TRIES, 0, -1):
                try:
                    self._fetch(session, url, progress, task)
                    break
                except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
                    if left == 1 or not self.part.exists():
                        raise
        shutil.move(self.part, output_file)
        self._stamp.unlink(missing_ok=True)

    @property
    def _stamp(self) -> Path:
        """What the server said that the file's version is, so that two versions are never joined."""
        return self.part.with_suffix(".version")

    def _fetch(self, session: requests.Session, url: str, progress: Progress, task: TaskID) -> None:
        begun = self.part.stat().st_size if self.part.exists() else 0
        version = self._stamp.read_text() if begun and self._stamp.exists() else ""
        headers = {"Range": f"bytes={begun}-", "If-Range": version} if version else {}
        with session.get(
            url, stream=True, timeout=TIMEOUT_S, headers=headers | {"Accept-Encoding": "identity"}
        ) as reply:
            if begun and reply.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()  # it was whole, or is longer than what is there now
                self._fetch(session, url, progress, task)
                return
            reply.raise_for_status()
            goes_on = begun > 0 and reply.headers.get("Content-Range", "").startswith(f"bytes {begun}-")
            size = int(reply.headers.get("Content-Length", 0))
            _need_room(self.part.parent, size)
            total = size + (begun if goes_on else 0)
            progress.update(task, completed=begun if goes_on else 0, total=total or None)
            self._stamp.write_text(reply.headers.get("ETag") or reply.headers.get("Last-Modified") or "")
            minute = Minute()

            def came(count: int) -> None:
                progress.advance(task, count)
                if not progress.console.is_interactive and minute.over():
                    progress.console.print(progress.get_renderable())

            with self.part.open("ab" if goes_on else "wb") as file:
                _copy(reply, file, came)
            if total and self.part.stat().st_size != total:
                raise requests.ConnectionError(f"{self.part.stat().st_size} of {total} bytes came")


def _copy(reply: requests.Response, file: IO[bytes], came: Callable[[int], None]) -> None:
    try:
        while block := reply.raw.read1(BLOCK):  # what has come by now; iter_content loses a block that is cut
            file.write(block)
            came(len(block))
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError(error) from error


def _need_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{folder}: {size / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are free: make room")


def _bar() -> Progress:
    return Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())


def _login_cityscapes(session: requests.Session, url: str) -> None:
    """As Cityscapes' own csDownload does it. Raises UserError without an account in the environment, or a wrong one."""
    names = ("CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD")
    user, password = (os.environ.get(name) for name in names)
    if not user or not password:
        raise UserError(
            f"{re.sub(r'[?].*', '', url)} asks for an account: set {names[0]} and {names[1]} in the environment, or "
            "download by hand from https://www.cityscapes-dataset.com/downloads/ and name the folder in params.yaml, "
            "sources.cityscapes.archive"
        )
    form = {"username": user, "password": password, "submit": "Login"}
    reply = session.post(urljoin(url, "/login/"), data=form, timeout=TIMEOUT_S, allow_redirects=False)
    if reply.status_code != requests.codes.found:
        raise UserError(f"Cityscapes refuses the account of {names[0]} ({reply.status_code}): check both variables")


LOGINS: dict[str, Callable[[requests.Session, str], None]] = {"cityscapes": _login_cityscapes}

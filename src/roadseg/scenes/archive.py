"""Unpacking what may be hostile: zip and tar, only what is wanted, never outside of the folder, never a bomb."""

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from roadseg.bar import track
from roadseg.errors import UserError
from roadseg.scenes.sources.source import Archive

SWELL = 100
"""Images are compressed already: what grows more than so many times is no data set."""
SMALL = 100_000_000
"""Bytes that may come of any archive, however much they swell: lists and masks of one colour."""

BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    """Bytes, unpacked, as the archive says."""
    plain: bool
    """A regular file: no link, no device."""
    info: zipfile.ZipInfo | tarfile.TarInfo


def is_archive(path: Path) -> bool:
    """Whether the file is a zip whose end is there, or a tar."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpack(path: Path, archive: Archive, folder: Path) -> None:
    """Writes the wanted files under `archive.root` to `folder` (and `archive.into`).

    Raises UserError: no archive, a broken one, one that would write outside of `folder`, one that swells like a bomb or
    beyond the disk, or one with nothing wanted inside. What was written by then is the caller's to discard.
    """
    try:
        with zipfile.ZipFile(path) if zipfile.is_zipfile(path) else tarfile.open(path) as file:
            wanted = [(at, member) for member in _members(file) if (at := _place(member, archive, path))]
            if not wanted:
                raise UserError(
                    f"{path} holds nothing of {archive.root or '.'}/: get {archive.file} from {archive.page}"
                )
            _refuse_bombs(path, sum(member.size for _, member in wanted), folder)
            if isinstance(file, tarfile.TarFile):  # a tar is read in its own order, or it is decompressed for each file
                wanted.sort(key=lambda pair: pair[1].info.offset)  # type: ignore[union-attr]
            for at, member in track(wanted, description=f"unpack {path.name}", transient=True):
                target = folder / archive.into / at
                target.parent.mkdir(parents=True, exist_ok=True)
                with _open(file, member) as packed, target.open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
                if target.stat().st_size != member.size:
                    raise EOFError(f"{member.name} is cut")
    except BROKEN as error:
        if isinstance(error, OSError) and not isinstance(error, tarfile.TarError | EOFError) and error.errno:
            raise UserError(f"{path} could not be unpacked into {folder}: {error}") from None
        why = " ".join(str(error).split())
        raise UserError(f"{path} is no archive, or a broken one ({why}): delete it and fetch it again") from None


def _members(file: zipfile.ZipFile | tarfile.TarFile) -> Iterator[_Member]:
    if isinstance(file, zipfile.ZipFile):
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir():
                yield _Member(info.filename, info.file_size, kind in (0, stat.S_IFREG), info)
        return
    for entry in file:
        if not entry.isdir():
            yield _Member(entry.name, entry.size, entry.isreg(), entry)


def _open(file: zipfile.ZipFile | tarfile.TarFile, member: _Member) -> IO[bytes]:
    if isinstance(file, zipfile.ZipFile):
        return file.open(member.info)  # type: ignore[arg-type]
    content = file.extractfile(member.info)  # type: ignore[arg-type]
    assert content is not None  # a regular file has one
    return content


def _place(member: _Member, archive: Archive, path: Path) -> str | None:
    """Where under the folder this member goes; None where it is not wanted."""
    parts = PurePosixPath(member.name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in member.name or not member.plain:
        raise UserError(f"{path}: its member {member.name!r} would leave the folder: do not trust this archive")
    name = str(parts)  # a tar's names may begin with ./
    root = f"{archive.root}/" if archive.root else ""
    return (
        name.removeprefix(root) if name.startswith(root) and re.fullmatch(archive.wanted, name[len(root) :]) else None
    )


def _refuse_bombs(path: Path, size: int, folder: Path) -> None:
    packed = path.stat().st_size
    if size > SMALL and size > SWELL * packed:
        raise UserError(
            f"{path} would swell from {packed / 1e6:.1f} MB to {size / 1e9:.1f} GB: do not trust this archive"
        )
    free = shutil.disk_usage(folder if folder.exists() else folder.parent).free
    if size > free:
        raise UserError(f"{path} needs {size / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB free: make room")

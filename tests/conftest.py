"""Fixtures of the whole suite: a workspace to run stages in, and one MLflow server that every test shares."""

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # that runs are the same to the last bit, as many tests ask, holds on a CPU


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole line first: its files take longest, and `make test` gives each file to one of two processes."""
    items.sort(key=lambda item: not item.path.name.startswith("test_line"))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project with this one's params.yaml, as the working directory; the environment names no other."""
    shutil.copy(PROJECT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in (
        "ROADSEG_HOME",
        "ROADSEG_TRACKING",
        "MLFLOW_TRACKING_URI",
        "DVC_ROOT",
        "DVC_EXP_NAME",
        "DVC_EXP_BASELINE_REV",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of an MLflow server of our own, and the folder that it keeps its store in (under mlflow/)."""
    from roadseg.tracking import server

    home = tmp_path_factory.mktemp("mlflow-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROADSEG_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        serving = server.serve()
        uri = serving.__enter__()
    yield uri, home
    serving.__exit__(None, None, None)


@pytest.fixture
def mlflow_uri(mlflow_server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The shared server, named by MLFLOW_TRACKING_URI as a user would."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server[0])
    return mlflow_server[0]


@pytest.fixture
def unique() -> str:
    """A name that no other test uses on the shared server."""
    return f"test-{uuid.uuid4().hex[:10]}"

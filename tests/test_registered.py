"""Registered models as the input of a training, against a real MLflow server."""

import hashlib
from pathlib import Path

import pytest

from roadseg import config, paths, tracking
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import registered
from tests.test_pull import made, trained


def asking(initial: str, teacher: str | None = None) -> Config:
    whole = config.read()
    distil = config.Distil(teacher=teacher) if teacher else None
    return whole.model_copy(update={"train": whole.train.model_copy(update={"initial": initial, "distil": distil})})


@pytest.fixture
def model(workspace: Path, mlflow_uri: str, unique: str) -> str:
    """A registered model, version 1 of which has weights and reigns; version 2 is from before weights were kept."""
    with tracking.open_registry() as registry:
        weights = trained(workspace / "trained")
        version = registry.register(unique, made(workspace / "one"), weights, tags={}, description="", run_id=None)
        registry.crown(version, {}, "")
        second = registry.register(unique, made(workspace / "two", "x"), weights, tags={}, description="", run_id=None)
        registry._client.delete_model_version_tag(unique, str(second.number), "roadseg.weights_sha256")
    return unique


def test_an_alias_becomes_a_version_and_its_weights_lie_here(model: str) -> None:
    found = registered.pinned(asking(f"models:/{model}@champion", f"models:/{model}/1"))
    assert found.train.initial == f"models:/{model}/1"
    assert found.train.distil and found.train.distil.teacher == f"models:/{model}/1"
    place = paths.weights(found.train.initial)
    assert place.read_bytes() == b"weights"
    assert sorted(path.name for path in place.parent.iterdir()) == ["recipe.json", "weights.safetensors"]


def test_a_damaged_copy_is_fetched_again(model: str) -> None:
    place = paths.weights(registered.pinned(asking(f"models:/{model}/1")).train.initial)
    place.write_bytes(b"other")
    registered.pinned(asking(f"models:/{model}/1"))
    assert hashlib.sha256(place.read_bytes()).hexdigest() == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("models:/{}/7", r"train\.initial: http.* has no models:/.*/7; versions of .*: 1, 2"),
        ("models:/{}@newest", r"has no models:/.*@newest"),
        ("models:/{}/2", r"was registered without its weights"),
        ("models:/{}", r"must be models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/nobody/1", r"versions of nobody: none"),
    ],
)
def test_what_is_not_there_is_one_line(model: str, source: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        registered.pinned(asking(source.format(model)))
    assert "\n" not in str(caught.value)


def test_files_and_words_stay_as_they_are(workspace: Path) -> None:
    given = asking("random", "some/weights.safetensors")
    assert registered.pinned(given) == given

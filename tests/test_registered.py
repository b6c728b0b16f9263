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
        ("models:/{}/2", r"was registered without its weights: train and promote anew"),
        ("models:/{}", r"must be models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/{}@1", r"an alias is no number: write models:/test-.*/VERSION"),
        ("models:/{}/\u0661", "must be models:/NAME/VERSION"),
        ("models:/{}/12345678901234567890", "must be models:/NAME/VERSION"),
        ("models:/{}\n/1", "must be models:/NAME/VERSION"),
        ("models:/{}/1\n", "must be models:/NAME/VERSION"),
        ("models:/../1", "must be models:/NAME/VERSION"),
        ("models:/../../x/1", "must be models:/NAME/VERSION"),
        ("models:/.git/1", "must be models:/NAME/VERSION"),
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


@pytest.mark.parametrize(
    "source",
    [
        "models:/../../x/1",
        "models:/../1",
        "models:/.x/1",
        "models:/x@champion",
        "models:/x/y/1",
        "models:/x/../1",
        "models://1",
        "models:/x/",
        "models:/x/1/",
        "models:/x/\u0661",
        "models:/x\n/1",
        "models:/x\0/1",
        "models:/x:y/1",
    ],
)
def test_no_name_leads_out_of_the_state(workspace: Path, source: str) -> None:
    with pytest.raises(UserError, match=r"must be models:/NAME/VERSION") as caught:
        paths.weights(source)
    assert "\n" not in str(caught.value)


def test_looking_up_a_place_makes_nothing(workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    place = paths.weights("models:/My model-1.0/12")
    assert place == workspace / ".state" / "registered" / "My model-1.0" / "12" / "weights.safetensors"
    assert sorted(workspace.rglob("*")) == before


def test_weights_that_were_not_kept_make_a_new_version(model: str, workspace: Path) -> None:
    """Version 2 holds no weights: to promote its bundle again must not say that it does."""
    with tracking.open_registry() as registry:
        third = registry.register(model, workspace / "two", workspace / "trained", tags={}, description="", run_id=None)
        assert third.number == 3
        again = registry.register(model, workspace / "two", workspace / "trained", tags={}, description="", run_id=None)
        assert again.number == 3, "the same bundle with the same weights is not registered twice"
        assert not registry.find(model, "2").weights
    assert paths.weights(registered.pinned(asking(f"models:/{model}/3")).train.initial).read_bytes() == b"weights"


def test_a_number_that_no_database_holds_is_not_asked_for(model: str) -> None:
    """MLflow's client would ask again for minutes."""
    with tracking.open_registry() as registry:
        assert registry.find(model, "12345678901234567890") is None
        assert registry.find(model, "\u0661") is None
        found = registry.find(model, "1")
    assert found and found.number == 1

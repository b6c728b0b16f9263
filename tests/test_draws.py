"""How often training draws each scene: against a loop, and through the profile."""

from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from roadseg import paths
from roadseg.errors import UserError
from roadseg.scenes import draws
from roadseg.stages import profile, training
from roadseg.stages.training import Course
from tests.test_overfit import prepared
from tests.test_train import FIVE, RECIPE


def repeats(scenes: list[set[int]], rare: float, often: list[float]) -> list[float]:
    """Gupta et al.'s three steps, word by word, but that a scene counts as often as it is drawn."""
    share = {
        c: sum(times for scene, times in zip(scenes, often, strict=True) if c in scene) / sum(often)
        for c in set().union(*scenes)
    }
    of_class = {c: max(1.0, sqrt(rare / f)) for c, f in share.items()}
    return [times * max((of_class[c] for c in scene), default=1.0) for scene, times in zip(scenes, often, strict=True)]


@pytest.mark.parametrize("rare", [0.0, 0.05, 0.3, 1.0])
def test_scenes_are_repeated_as_their_rarest_class_asks(rare: float) -> None:
    random = np.random.default_rng(0)
    shows = random.random((200, 7)) < [1, 0.9, 0.4, 0.2, 0.1, 0.01, 0]  # the last is in no scene
    often = [1.0] * 120 + [0.05] * 80
    scenes = [set(np.flatnonzero(row).tolist()) for row in shows]
    np.testing.assert_allclose(draws.by_classes(np.array(often), shows, rare), repeats(scenes, rare, often), rtol=1e-12)


def test_a_scene_that_shows_nothing_comes_once() -> None:
    shows = np.array([[True, False], [False, False]])
    assert draws.by_classes(np.ones(2), shows, 1.0).tolist() == [sqrt(2), 1]


def test_training_draws_by_class_what_is_left_of_the_scenes(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crops of a training, counted: with a scene in the middle left out, which none of the others replaces."""
    given = prepared(sources=FIVE, train={"oversample": 1.0, "skip_unreadable": True})
    profile.run(given)
    table = pd.read_csv(paths.PROFILE / "scenes.csv")
    table = table[table["split"] == "train"]
    scenes = [set(np.flatnonzero(row).tolist()) for row in table.filter(regex="^share_").to_numpy()]
    expected = dict(zip(table["image"], repeats(scenes, 1.0, [1.0] * 5), strict=True))
    lost = table["image"].iloc[1]
    Path(lost).write_bytes(b"no image")
    course = Course.open(given)
    assert len(course.train) == 4 and lost not in course.train.names

    monkeypatch.setattr(training.engine, "fit", lambda begun, batches, **settings: iter([batches]))
    [batches] = course.fit(course.begin(RECIPE, epochs=1, seed=1), RECIPE, epochs=1, reports=1)
    counts = np.bincount([batches.scene(i) for i in range(8000)])
    wanted = np.array([expected[name] for name in course.train.names])
    np.testing.assert_allclose(counts / counts.sum(), wanted / wanted.sum(), atol=0.01)
    assert np.ptp(wanted / wanted.sum()) > 0.03, "else this could not be seen"


@pytest.mark.parametrize("column", ["label", "label_sha256"])
def test_a_profile_of_other_scenes_is_refused_before_they_are_packed(workspace: Path, column: str) -> None:
    given = prepared(sources=FIVE, train={"oversample": 1.0})
    profile.run(given)
    path = paths.PROFILE / "scenes.csv"
    table = pd.read_csv(path)
    changed = table["label"].iloc[0]
    table.loc[0, column] = "changed"
    table.loc[table["split"] == "test", ["label", "label_sha256"]] = None  # as where there are none
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match=rf"^{path} does not know {changed} as it is now: run the profile stage again"):
        Course.open(given)
    assert not list(paths.state("packs").glob("*"))


def test_a_damaged_profile_is_one_line(workspace: Path) -> None:
    given = prepared(sources=FIVE, train={"oversample": 1.0})
    profile.run(given)
    path = paths.PROFILE / "scenes.csv"
    whole = path.read_text()
    for text in ("", whole.replace("share_road", "share_street"), whole.replace("label_sha256", "digest")):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"^{path} is damaged: run the profile stage again"):
            Course.open(given)

"""The search against a course that needs no training: what a trial is worth follows from its recipe."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pandas as pd
import pytest
from safetensors.torch import save_file

from roadseg import nets, paths
from roadseg.config import Config
from roadseg.engine import Diverged
from roadseg.errors import StageFailure, UserError
from roadseg.stages import search, train
from roadseg.stages.search import REPORTS, Search
from roadseg.stages.stage import Stage
from roadseg.stages.training import Recipe
from roadseg.tracking.null import NullRun
from tests import segnet

TABLE = pd.DataFrame(
    {
        "network": ["enet", "enet", "fastscnn", "ddrnet23slim"],
        "engine": ["onnxruntime", "openvino", "onnxruntime", "onnxruntime"],
        "precision": "float32",
        "p95_ms": [30.0, 50.0, 10.0, 20.0],
    }
)


class Course:
    """Scores that depend on the recipe alone; what `deaths` has of a number is raised by that trial's training, what
    `late` has, after its second report."""

    def __init__(self) -> None:
        self.space = SimpleNamespace(classes=("road",))
        self.train = range(4)
        self.worth = {"enet": 0.1, "fastscnn": 0.3, "ddrnet23slim": 0.2}
        self.deaths: dict[int, BaseException] = {}
        self.late: dict[int, BaseException] = {}
        self.begun: list[Recipe] = []

    def record(self, run: object) -> None: ...

    def begin(self, recipe: Recipe, *, epochs: float, seed: int) -> Recipe:
        self.begun.append(recipe)
        return recipe

    def validated(
        self, recipe: Recipe, same: Recipe, *, epochs: float, times: int, show: object
    ) -> Iterator[SimpleNamespace]:
        if death := self.deaths.pop(len(self.begun), None):
            raise death
        miou = self.worth[recipe.network] + recipe.learning_rate
        look = SimpleNamespace(
            loss=1.0,
            report=SimpleNamespace(learning_rate=recipe.learning_rate),
            scores=SimpleNamespace(miou=miou, iou=(miou,)),
        )
        for number in range(times):
            if number == 2 and (death := self.late.pop(len(self.begun), None)):
                raise death
            yield look


class Parent(NullRun):
    """Remembers what its children were given."""

    def __init__(self) -> None:
        self.children: list[tuple[str, dict[str, Any]]] = []
        self.tables: dict[str, pd.DataFrame] = {}

    def table(self, name: str, frame: pd.DataFrame) -> None:
        self.tables[name] = frame

    @contextmanager
    def child(self, key: str, name: str, params: Any = None, tags: Any = None) -> Iterator[NullRun]:
        self.children.append((name, dict(params)))
        yield NullRun()


@pytest.fixture
def course(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Course:
    monkeypatch.setattr(search, "key", lambda *_: "study")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return Course()


def settings(**changes: Any) -> Config:
    given = {"trials": 6, "networks": ("enet", "fastscnn", "ddrnet23slim"), "pruner": "none"} | changes
    config = segnet.settings()
    return config.model_copy(update={"search": config.search.model_copy(update=given)})


def opened(course: Course, **changes: Any) -> Search:
    return Search(settings(**changes), course, TABLE, Parent())  # type: ignore[arg-type]


def finish(study: Search) -> Search:
    while study.remaining:
        study.run()
    return study


@pytest.mark.parametrize("damage", [b"no database", None])
def test_a_damaged_study_is_one_line(course: Course, damage: bytes | None) -> None:
    opened(course)
    path = paths.state("study", "optuna.db")
    path.write_bytes(path.read_bytes()[:20_000] if damage is None else damage)
    with pytest.raises(UserError, match=r"study/optuna\.db is damaged \(.+\): delete it, and the search starts anew$"):
        opened(course)


def test_each_network_is_tried_once_with_the_same_recipe_before_the_sampler_chooses(course: Course) -> None:
    finish(opened(course))
    first = course.begun[:3]
    assert [recipe.network for recipe in first] == ["enet", "fastscnn", "ddrnet23slim"]
    assert len({(recipe.loss, recipe.learning_rate, recipe.crop) for recipe in first}) == 1
    assert len({recipe.learning_rate for recipe in course.begun}) == 4


def test_every_weight_that_starts_at_random_is_listed(
    course: Course, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, ours = (nets.build("fastscnn", classes).state_dict() for classes in (19, 11))
    save_file({name: value for name, value in theirs.items() if "fusion" not in name}, tmp_path / "w.safetensors")
    config, parent = settings(networks=("fastscnn",)), Parent()
    train = config.train.model_copy(update={"initial": str(tmp_path / "w.safetensors")})
    Search(config.model_copy(update={"train": train}), course, TABLE, parent)  # type: ignore[arg-type]
    listed = parent.tables["not_loaded.csv"]["weight"].str.split(":").str[0]
    assert set(listed) == {name for name in ours if "fusion" in name or ours[name].shape != theirs[name].shape}
    assert f"and {len(listed) - 5} more" in capsys.readouterr().out


def test_more_trials_go_on_and_fewer_are_none(course: Course) -> None:
    finish(opened(course, trials=4))
    assert opened(course, trials=2).remaining == 0, "it is no loop for ever"
    finish(opened(course, trials=2))
    assert len(course.begun) == 4
    finish(opened(course, trials=5))
    assert len(course.begun) == 5


def test_a_killed_trial_is_trained_again_with_its_own_recipe_and_does_not_count(course: Course) -> None:
    course.deaths = {2: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        finish(opened(course))
    study = finish(opened(course))
    assert course.begun[1] == course.begun[2]
    frame = study.trials()
    assert len(frame) == 6 and set(frame["state"]) == {"complete"}
    assert frame["network"].tolist()[:3].count(course.begun[1].network) == 1


@pytest.mark.parametrize("pruner", search.PRUNERS)
def test_a_search_that_was_killed_ends_as_one_that_was_not(
    course: Course, monkeypatch: pytest.MonkeyPatch, pruner: str
) -> None:
    """Killed in the queue, in what is drawn at random, and in what the sampler draws from what it has seen; at a
    trial's start, and after its second report."""
    whole = finish(opened(course, trials=12, pruner=pruner)).trials()
    assert (whole["state"] == "pruned").any() == (pruner != "none")
    monkeypatch.setattr(search, "key", lambda *_: "killed")
    again = Course()
    again.deaths = {number: KeyboardInterrupt() for number in (2, 12)}
    again.late = {6: KeyboardInterrupt(), 10: KeyboardInterrupt()}
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            finish(opened(again, trials=12, pruner=pruner))
    pd.testing.assert_frame_equal(
        finish(opened(again, trials=12, pruner=pruner)).trials().drop(columns="number"), whole.drop(columns="number")
    )


def test_a_diverged_trial_counts_and_is_no_finalist(course: Course) -> None:
    course.deaths = {2: Diverged("training diverged: loss nan")}
    study = finish(opened(course, finalists=6))
    assert len(course.begun) == 6
    assert study.trials()["state"].tolist().count("fail") == 1
    assert course.begun[1] not in study.finalists() or course.begun.count(course.begun[1]) > 1


def test_the_best_of_each_network_comes_before_any_networks_second(course: Course) -> None:
    study = finish(opened(course, trials=9, finalists=3))
    assert [recipe.network for recipe in study.finalists()] == ["fastscnn", "ddrnet23slim", "enet"]
    frame = study.trials()
    best = frame[frame["network"] == "fastscnn"]["learning_rate"].max()
    assert study.finalists()[0].learning_rate == best


def test_finalists_never_share_a_name(course: Course) -> None:
    study = opened(course, trials=2, finalists=2, networks=("enet",))
    study.study.enqueue_trial({"network": "enet", "loss": "focal", "learning_rate": 0.00501, "crop": 0.5})
    study.study.enqueue_trial({"network": "enet", "loss": "focal", "learning_rate": 0.00499, "crop": 0.5})
    finish(opened(course, trials=3, finalists=3, networks=("enet",)))
    names = [recipe.name for recipe in opened(course, trials=3, finalists=3, networks=("enet",)).finalists()]
    assert len(names) == len(set(names)) == 2


def test_nothing_to_choose_from_is_a_failure(course: Course) -> None:
    course.deaths = {1: Diverged("nan"), 2: Diverged("nan")}
    with pytest.raises(StageFailure, match="none of 2 trials came to its end"):
        finish(opened(course, trials=2)).finalists()


@pytest.mark.parametrize(
    ("pruner", "states"),
    [
        ("median", ["complete", "pruned", "complete"]),
        ("halving", ["complete", "pruned", "complete"]),
        ("none", ["complete", "complete", "complete"]),
    ],
)
def test_a_trial_competes_with_those_of_its_network_alone(course: Course, pruner: str, states: list[str]) -> None:
    """Two networks that learn faster do not stop the slow one's better recipes, nor does its own first trial, which
    diverged when it was far ahead."""
    course.worth = {"enet": 0.6, "fastscnn": 0.6, "ddrnet23slim": 0.1}
    course.late = {3: Diverged("training diverged: loss nan")}
    study = opened(course, pruner=pruner, trials=2)
    finish(study)
    for rate in (0.03, 0.005, 0.004, 0.006):
        study.study.enqueue_trial({"network": "ddrnet23slim", "loss": "focal", "learning_rate": rate, "crop": 0.5})
    study = finish(opened(course, pruner=pruner, trials=6, finalists=3))
    frame = study.trials()
    assert frame["network"].tolist()[2:] == ["ddrnet23slim"] * 4
    assert frame["state"].tolist() == ["complete", "complete", "fail", *states]
    assert frame["reports"].tolist() == [REPORTS, REPORTS, 2, *(2 if one == "pruned" else REPORTS for one in states)]
    slow = study.finalists()[2]
    assert (slow.network, slow.learning_rate) == ("ddrnet23slim", 0.006)


def test_the_best_that_is_told_is_a_complete_one(course: Course, capsys: pytest.CaptureFixture[str]) -> None:
    course.late = {2: Diverged("training diverged: loss nan")}
    study, running = finish(opened(course, trials=3)), Stage("search")
    study.write(running)
    running.place()
    told = json.loads(Path("models/search/metrics.json").read_text())
    frame = study.trials()
    assert frame.loc[frame["val_miou"].idxmax(), "state"] == "fail"
    assert (told["best_network"], told["complete"]) == ("ddrnet23slim", 2)
    assert "fastscnn: no trial came to its end, so none is a finalist" in capsys.readouterr().out


def test_networks_for_which_there_are_too_few_trials_are_named(
    course: Course, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(course, trials=1)
    assert "not tried: fastscnn, ddrnet23slim: search.trials (params.yaml) is 1: raise it" in capsys.readouterr().out
    finish(opened(course, trials=3))
    opened(course, trials=1)
    assert "not tried" not in capsys.readouterr().out


def test_runs_hold_every_setting(course: Course) -> None:
    parent = Parent()
    study = Search(settings(trials=1), course, TABLE, parent)  # type: ignore[arg-type]
    finish(study)
    ((name, params),) = parent.children
    assert name.startswith("trial-0-")
    config = settings()
    without = {"epochs", "workers", "cache_gb", "keep", "skip_unreadable"}  # these change no training by themselves
    shared = config.train.model_dump(exclude=without)
    assert params.items() >= shared.items() and "workers" not in params
    assert (params["epochs"], params["seed"]) == (config.search.epochs, config.seed)


def test_what_is_written_holds_no_time(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    study = finish(opened(course))
    running = Stage("search")
    study.write(running)
    running.place()
    chosen = json.loads(Path("models/search/finalists.json").read_text())
    assert chosen["study"] == "study"
    assert [Recipe(**one) for one in chosen["finalists"]] == study.finalists()
    assert len(pd.read_csv("models/search/trials.csv")) == 6
    assert {path.name for path in Path("models/search/figures").iterdir()} == {"frontier.png", "search.png"}


def test_what_is_too_slow_in_every_form_is_left_out() -> None:
    config = settings()
    tight = config.model_copy(update={"target": config.target.model_copy(update={"budget_ms": 25.0})})
    assert search.admitted(tight, TABLE) == ["fastscnn", "ddrnet23slim"]
    none = config.model_copy(update={"target": config.target.model_copy(update={"budget_ms": 5.0})})
    with pytest.raises(UserError, match=r"no network runs within 5 ms here; the fastest is fastscnn with 10\.0 ms"):
        search.admitted(none, TABLE)


def test_a_finalist_that_diverges_is_left_out_and_all_of_them_are_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Recipe("enet", "dice", 0.01, 0.5), Recipe("enet", "focal", 0.03, 1.0)

    def run(recipe: Recipe) -> Path:
        if recipe == bad:
            raise Diverged("training diverged: loss nan at step 3")
        return Path("kept.pt")

    assert train.each([bad, good], run) == {good: Path("kept.pt")}
    assert "left out: enet-focal-0.03-1: training diverged: loss nan at step 3" in capsys.readouterr().out
    with pytest.raises(StageFailure, match=r"enet-focal-0\.03-1: .* lower search\.learning_rate\.high"):
        train.each([bad], run)

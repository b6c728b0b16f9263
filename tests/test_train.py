"""A finalist's training: killed and resumed it is the same one; early stopping; which weights are kept."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from roadseg import checkpoint, config, kernels, paths
from roadseg.engine import Report
from roadseg.errors import UserError
from roadseg.metrics import Scores
from roadseg.scenes import index
from roadseg.scenes.batches import Batches
from roadseg.scenes.plan import even
from roadseg.stages import profile, score, train, trainable, training
from roadseg.stages.stage import stage
from roadseg.stages.training import Course, Recipe
from roadseg.tracking.null import NullRun
from tests.test_overfit import STREETS, prepared

PROJECT = Path(__file__).resolve().parents[1]
RECIPE = Recipe("fastscnn", "dice", 0.004, 1.0)
CLASS_AWARE = {"max_share": 0.5, "oversample": 1.0}
FIVE = {"streets": STREETS["streets"] | {"scenes_per_drive": 5}}


def sampled_by_class(course: Course, crops: range) -> bool:
    """Whether these crops come from other scenes than they would without class-aware sampling."""
    aware, plain = (
        Batches(course.train, even(10**9, 1, (64, 96)), seed=course.config.seed, draws=draws)
        for draws in (course.draws, None)
    )
    return [aware.scene(i) for i in crops] != [plain.scene(i) for i in crops]


def finalist(network: str) -> Path:
    given = config.read()
    return train.train(given, Course.open(given), Recipe(network, "dice", 0.004, 0.75), NullRun())


def trained(network: str, workspace: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"]
    command[-1] += f"from tests.test_train import finalist; finalist({network!r})"
    return subprocess.Popen(command, cwd=workspace, stdout=subprocess.DEVNULL)


def killed(network: str, workspace: Path, path: Path, wait: float) -> int:
    """The step of the checkpoint that a training leaves which is killed so many seconds after its first one."""
    path.unlink(missing_ok=True)
    process = trained(network, workspace)
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.01)
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return int(checkpoint.load(path)["training"]["step"])


@pytest.mark.parametrize("network", ["fastscnn", "enet", "ppliteseg_t"])
def test_a_killed_training_resumed_is_the_same_bit_for_bit(workspace: Path, network: str) -> None:
    """kill -9 between checkpoints, in a process of its own; shuffling, class-aware sampling and crops, flips, phases,
    dropout, batch norm, EMA and optimizer go on as if nothing had happened."""
    phases = [{"share": 0.6, "scale": 0.75, "batch": 2}, {"share": 0.4, "rate": 0.5}]
    of_training = {"epochs": 5, "batch": 2, "validate_every": 1.25, "schedule": "cosine", "clip": 1.0, "phases": phases}
    given = prepared(sources=FIVE, train=of_training | CLASS_AWARE)
    profile.run(given)
    assert sampled_by_class(Course.open(given), range(18, 39)), "behind the first checkpoint"
    whole = checkpoint.load(finalist(network))
    checkpoints = paths.state("checkpoints", "")
    [path] = checkpoints.glob("*.pt")

    wait = random.uniform(0, 0.5)  # seconds after the first checkpoint: a step that nobody chose
    while (before := killed(network, workspace, path, wait)) == whole["training"]["step"]:
        wait /= 2
    assert 0 < before < whole["training"]["step"], "it was killed in the middle"

    resumed = checkpoint.load(finalist(network))
    assert len(resumed["curve"]) == len(whole["curve"])
    for part in ("net", "ema"):
        mine, its = resumed["training"][part], whole["training"][part]
        assert mine.keys() == its.keys()
        assert all(torch.equal(value, its[name]) for name, value in mine.items())
    assert [row["loss"] for row in resumed["curve"]] == [row["loss"] for row in whole["curve"]]


def test_a_training_repeated_is_the_same_with_any_number_of_workers(workspace: Path) -> None:
    """The files that the stage leaves, byte by byte, with crops drawn in the step's own thread, and by two others."""
    given, written = prepared(sources=FIVE, train={"epochs": 3, "batch": 2, "mixup": 0.2, **CLASS_AWARE}), []
    profile.run(given)
    assert sampled_by_class(Course.open(given), range(15))
    for workers in (0, 2, 2):
        settings = given.train.model_copy(update={"workers": workers})
        config = given.model_copy(update={"train": settings})
        course = Course.open(config)
        path = train.train(config, course, RECIPE, NullRun())
        with stage("train") as running:
            train.write(config, course, {RECIPE: path}, running)
        files = "metrics.json", "curves.csv", f"finalists/{RECIPE.name}/recipe.json"
        written.append([(paths.TRAIN / file).read_bytes() for file in files])
        path.unlink()  # a name for all of them: how many draw crops changes no result
    assert written[0] == written[1] == written[2]


def test_what_computes_is_part_of_a_trainings_name(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = prepared(sources=STREETS)
    profile.run(given)
    course = Course.open(given)
    monkeypatch.setattr(kernels, "compiled", lambda: None)
    by_torch = training.key(course, ["enet"])
    monkeypatch.setattr(kernels, "compiled", lambda: "compiled")
    assert training.key(course, ["enet"]) != by_torch


def test_leave_to_skip_scenes_changes_a_trainings_name_only_where_one_is_skipped(workspace: Path) -> None:
    given = prepared(sources=STREETS)
    profile.run(given)
    whole = training.key(Course.open(given), ["enet"])
    given = given.model_copy(update={"train": given.train.model_copy(update={"skip_unreadable": True})})
    assert training.key(Course.open(given), ["enet"]) == whole
    index.labelled(given, "train")[1].image.write_bytes(b"no image")
    shutil.rmtree(paths.state("packs"))  # which would still have it
    assert training.key(Course.open(given), ["enet"]) != whole


def test_mixup_of_one_crop_is_refused(workspace: Path) -> None:
    given = prepared(sources=STREETS, train={"batch": 1, "mixup": 0.2})
    profile.run(given)
    course = Course.open(given)
    with pytest.raises(
        UserError, match=r"train\.mixup: a step has one crop \(share 1\) .* needs two: raise train\.batch"
    ):
        train.train(given, course, RECIPE, NullRun())
    assert course.plan(0.5, 1).phases[0].crops == 2, "smaller crops are more"


def test_the_encoder_alone_learns_at_its_own_rate(workspace: Path) -> None:
    given = prepared(sources=STREETS, train={"encoder_rate": 0.1})
    profile.run(given)
    training = Course.open(given).begin(replace(RECIPE, network="linknet_r18"), epochs=1, seed=1)
    slowed = {id(one) for group in training.optimizer.param_groups if group["share"] == 0.1 for one in group["params"]}
    names = {name for name, one in training.net.named_parameters() if id(one) in slowed}
    assert names == {name for name, _ in training.net.named_parameters() if name.startswith("backbone.")}
    assert 0 < len(names) < len(list(training.net.parameters()))


def test_an_encoder_that_there_is_not_is_not_slowed(workspace: Path) -> None:
    given = prepared(sources=STREETS, train={"encoder_rate": 0.1}, search={"networks": ["linknet_r18", "stdc1"]})
    with pytest.raises(UserError, match=r"^params.yaml: train.encoder_rate: 0.1: stdc1 has no ResNet, Swin or MiT"):
        trainable.check(given)
    trainable.check(given.model_copy(update={"train": given.train.model_copy(update={"encoder_rate": 1.0})}))


@pytest.fixture
def scored(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation scores that the test lists in advance, in place of the network's own; the last one stays."""
    given = prepared(sources=STREETS, train={"epochs": 6, "batch": 2, "patience": 2, "keep": "best"})
    profile.run(given)
    scores: list[float] = []

    def score(course: Course, training: Any) -> Any:
        value = scores.pop(0) if len(scores) > 1 else scores[0]
        return Scores(value, (value,) * 19, value, value, value, 19)

    monkeypatch.setattr(Course, "score", score)
    return scores


def test_training_stops_where_it_no_longer_improves_and_keeps_the_best(
    scored: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    scored += [0.1, 0.4, 0.3, 0.2, 0.2, 0.2]
    given = config.read()
    course = Course.open(given)
    old, half, other = (paths.state("checkpoints", name) for name in ("old.pt", "half.pt.aside", "other.pt"))
    for path in (old, half, other):
        path.touch()
    for path in (old, half):
        os.utime(path, (0, time.time() - (train.KEEP_DAYS + 1) * 86400))
    saved = checkpoint.load(train.train(given, course, RECIPE, NullRun()))
    assert [path.exists() for path in (old, half, other)] == [False, False, True], "what nobody asked for is forgotten"
    assert [row["val_miou"] for row in saved["curve"]] == [0.1, 0.4, 0.3, 0.2]
    assert saved["best"]["scores"]["miou"] == 0.4 and saved["best"]["epoch"] == pytest.approx(2, abs=0.6)
    assert "no better for 2 epochs, stopped at 4" in capsys.readouterr().out
    steps = saved["training"]["step"]
    again = checkpoint.load(train.train(given, course, RECIPE, NullRun()))
    assert again["training"]["step"] == steps, "a stopped training does not go on when it is asked again"
    last = saved["training"]["ema"]
    assert any(not torch.equal(value, last[name]) for name, value in saved["best"]["net"].items())


def test_a_patience_shorter_than_a_validation_apart_does_not_stop_what_improves(scored: list[float]) -> None:
    scored += [0.1, 0.4, 0.3]
    given = config.read()
    given = given.model_copy(update={"train": given.train.model_copy(update={"patience": 0.2, "validate_every": 1})})
    saved = checkpoint.load(train.train(given, Course.open(given), RECIPE, NullRun()))
    assert [row["val_miou"] for row in saved["curve"]] == [0.1, 0.4, 0.3]


def test_a_validations_loss_is_the_mean_of_its_steps_and_the_line_shows_its_own_score(
    scored: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 steps in 8 reports: some of two steps, most of one."""
    scored += [0.1, 0.4]
    given = config.read()
    course, shown = Course.open(given), []
    learner = course.begin(RECIPE, epochs=1, seed=1)
    ends = [10 * tick // training.TICKS for tick in range(1, training.TICKS + 1)]

    def fit(course: Course, training: Any, recipe: Recipe, *, epochs: float, reports: int) -> Any:
        for begun, step in pairwise([0, *ends]):
            losses = [2 - step / 10 for step in range(begun, step)]
            loss = sum(losses) / len(losses)
            yield Report(step, 10, step / 10, loss, 0.1, 1.0, parts=1, setbacks=0)

    monkeypatch.setattr(Course, "fit", fit)
    looks = course.validated(learner, RECIPE, epochs=1, times=1, show=lambda report, miou: shown.append(miou))
    assert [look.loss for look in looks] == [pytest.approx(sum(2 - step / 10 for step in range(10)) / 10)]
    assert shown == [None] * (training.TICKS - 1) + [0.1], "no report is shown with a score of before"


def test_the_class_scores_that_are_recorded_are_of_the_weights_that_are_kept(
    scored: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train.keep` may change after the training, whose run is finished then."""
    scored += [0.1, 0.4, 0.3, 0.2, 0.2, 0.2]
    recorded: dict[str, float] = {}
    monkeypatch.setattr(NullRun, "metrics", lambda run, values, step=0: recorded.update(values))
    given = config.read()
    for keep, best in (("last", 0.2), ("best", 0.4)):
        given = given.model_copy(update={"train": given.train.model_copy(update={"keep": keep})})
        train.train(given, Course.open(given), RECIPE, NullRun())
        assert recorded["iou_road"] == best
        monkeypatch.setattr(NullRun, "finished", True)


def test_class_weights_of_other_classes_or_damaged_ones_are_refused(workspace: Path) -> None:
    given = prepared(sources=STREETS)
    profile.run(given)
    path = paths.PROFILE / "weights.json"
    whole = json.loads(path.read_text())
    other = {name: values[:11] if isinstance(values, list) else values for name, values in whole.items()}
    others = r"of other classes than cityscapes19's \(params.yaml: data.space\): run the profile stage again"
    for text, said in (
        (json.dumps(other), others),
        (json.dumps(whole | {"classes": ["street", *whole["classes"][1:]]}), others),
        (json.dumps(whole | {"enet": whole["enet"][1:]}), "damaged: run the profile stage again"),
        (json.dumps({"classes": whole["classes"]}), "damaged: run the profile stage again"),
        (json.dumps(whole)[:-5], "damaged: run the profile stage again"),
        ("3", "damaged: run the profile stage again"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=f"^{path} is {said}"):
            Course.open(given)


def test_a_long_losss_name_fits_into_a_file_system() -> None:
    losses = [" + ".join(["weighted_cross_entropy(class_weights=class_balanced)"] * times) for times in (5, 6)]
    names = [replace(RECIPE, loss=loss).name for loss in losses]
    assert all(len(name) < 130 for name in names) and names[0] != names[1]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_that_are_written_are_those_asked_for(scored: list[float], keep: str) -> None:
    scored += [0.1, 0.4, 0.3, 0.2, 0.2, 0.2]
    given = config.read()
    given = given.model_copy(update={"train": given.train.model_copy(update={"keep": keep})})
    course = Course.open(given)
    path = train.train(given, course, RECIPE, NullRun())
    with stage("train") as running:
        train.write(given, course, {RECIPE: path}, running)
    results = score.run(given, None, score.views("0.75,1", True, "64x80"), "val")
    assert list(results) == ["one view", "scales 0.75, 1; mirrored; window 64x80"]
    assert all(0 < value < 1 for value in results.values())
    saved = checkpoint.load(path)
    expected = saved["best"]["net"] if keep == "best" else saved["training"]["ema"]
    written = checkpoint.load(paths.TRAIN / "finalists" / RECIPE.name / "weights.pt")
    assert all(torch.equal(value, expected[name]) for name, value in written.items())
    recipe = json.loads((paths.TRAIN / "finalists" / RECIPE.name / "recipe.json").read_text())
    assert recipe["epochs"] == 6 and recipe["kept_epoch"] == pytest.approx(2 if keep == "best" else 4, abs=0.6)
    said = json.loads((paths.TRAIN / "metrics.json").read_text())
    assert said["best_val_miou"] == (0.4 if keep == "best" else 0.2), "as the validation that saw them said"


def test_a_finalist_of_other_classes_and_a_damaged_one_are_not_scored(workspace: Path) -> None:
    given = prepared(sources=STREETS, train={"epochs": 1, "batch": 2})
    profile.run(given)
    course = Course.open(given)
    with stage("train") as running:
        train.write(given, course, {RECIPE: train.train(given, course, RECIPE, NullRun())}, running)
    path = paths.TRAIN / "finalists" / RECIPE.name / "recipe.json"
    recipe = json.loads(path.read_text())
    for damaged, said in (
        (recipe | {"space": "camvid11", "classes": ["sky"]}, "trained on camvid11, and data.space .* is cityscapes19"),
        (recipe | {"network": "enet"}, r"not as the train stage left it \(Error\(s\) in loading"),
        ({}, r"not as the train stage left it \('classes'\): run that stage again"),
    ):
        path.write_text(json.dumps(damaged))
        with pytest.raises(UserError, match=said):
            score.run(given, None, score.views("1", False, None), "val")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("1,big", False, None), r"--scales '1,big': write sizes from 0\.1 to 10"),
        (("0", False, None), r"--scales '0'"),
        (("1", False, "64"), r"--window '64': write HEIGHTxWIDTH in pixels"),
        (("1", False, "8x8"), r"--window '8x8'"),
    ],
)
def test_views_that_are_none_are_said(given: tuple[str, bool, str | None], says: str) -> None:
    with pytest.raises(UserError, match=says):
        score.views(*given)

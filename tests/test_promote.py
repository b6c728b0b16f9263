"""The decision rule, against hand-made confusions; then the stage, against a real MLflow server."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import yaml

from roadseg import config, labels, paths, tracking
from roadseg.deploy import bundle, device, engines
from roadseg.errors import StageFailure, UserError
from roadseg.scenes.index import Scene, index_path, write_index
from roadseg.stages import champion, frontier, promote
from roadseg.stages.contest import Contender, decide
from tests import brightest

SPACE = labels.load("cityscapes19")
CLASSES = ("road", "car", "pole")


# ---- the rule --------------------------------------------------------------------------------------------------------


def confusions(right: float, scenes: int = 8, classes: int = 3) -> np.ndarray:
    """Every class has 100 pixels a scene, of which this share is right and the rest goes to the next class."""
    hits = round(100 * right)
    one = np.eye(classes, dtype=np.int64) * hits + np.roll(np.eye(classes, dtype=np.int64), 1, axis=1) * (100 - hits)
    return np.stack([one] * scenes)


def timed(p95: float, stable: bool = True, **other) -> dict:
    certificate = {"p95_ms": p95, "stable": stable, "device_id": "here", "versions": {"onnxruntime": "1"}}
    form = {"engine": "onnxruntime", "precision": "float32", "threads": 2, "device": "cpu"}
    return form | {"certificate": certificate} | other


def one(name: str, right: float, p95: float = 10.0, stable: bool = True, **more) -> Contender:
    return Contender(name, f"sha-{name}", timed(p95, stable), confusions(right), 0.4, **more)


def target(**changes) -> config.Target:
    given = {"device": "cpu", "budget_ms": 60.0, "engines": ("onnxruntime",), "threads": 2, "accept_unstable": False}
    return config.Target(**given | changes)


def rule(candidates, reigning=None, **changes):
    return decide(candidates, reigning, target(**changes), CLASSES, seed=7)


def verdicts(decision):
    return {row["name"]: row["verdict"] for row in decision.rows}


def test_the_best_miou_within_the_budget_wins():
    decision = rule([one("slow", 0.9, p95=61), one("good", 0.8, p95=59), one("fast", 0.7, p95=5)])
    assert (decision.outcome, decision.winner.name) == ("promoted", "good")
    assert decision.reason == "good: mIoU 66.7%, p95 59.0 ms: the best candidate, and there was no champion"
    assert verdicts(decision)["slow"] == "p95 61.0 ms is over the budget of 60 ms"
    assert verdicts(decision)["fast"] == "mIoU 12.8 points lower"
    assert [row["name"] for row in decision.rows] == ["good", "slow", "fast"]


def test_a_small_lead_is_said_to_be_one():
    better, worse = confusions(0.80), confusions(0.80)
    better[0], worse[1] = confusions(0.9)[0], confusions(0.89)[0]
    candidates = [Contender("a", "a", timed(9), better, None), Contender("b", "b", timed(9), worse, None)]
    decision = rule(candidates)
    assert decision.winner.name == "a"
    assert verdicts(decision)["b"].endswith("; on other scenes it could be the other way round")


def test_an_unstable_latency_counts_only_where_it_may():
    candidates = [one("shaky", 0.9, stable=False), one("calm", 0.7)]
    assert verdicts(rule(candidates))["shaky"] == "its p95 of 10.0 ms is unstable, and target.accept_unstable is off"
    assert rule(candidates, accept_unstable=True).winner.name == "shaky"


def test_a_class_below_its_floor_shuts_out():
    decision = rule([one("a", 0.9)], floors={"pole": 0.95})
    assert decision.outcome == "none"
    assert (
        decision.reason == "no candidate may be deployed; the nearest is a: pole at 81.8% is below its floor of 95.0%"
    )
    assert rule([one("a", 0.9)], floors={"pole": 0.8}).outcome == "promoted"


def test_the_nearest_is_named_where_nobody_is_within_the_budget():
    decision = rule([one("a", 0.9, p95=80), one("b", 0.5, p95=70)])
    assert decision.outcome == "none"
    assert "the nearest is b: p95 70.0 ms is over the budget of 60 ms" in decision.reason


def test_the_champion_stays_unless_it_is_beaten():
    decision = rule([one("new", 0.7)], one("old", 0.8, version=3))
    assert (decision.outcome, decision.winner.name) == ("kept", "old")
    decision = rule([one("new", 0.8)], one("old", 0.7, version=3))
    assert (decision.outcome, decision.winner.name) == ("promoted", "new")
    assert decision.reason.endswith("the best; the champion was old with mIoU 53.8%")
    assert rule([one("new", 0.8)], one("old", 0.8, version=3)).outcome == "kept", "a tie is no reason to change"


def test_a_champion_that_is_over_todays_budget_goes():
    decision = rule([one("new", 0.7, p95=20)], one("old", 0.8, p95=30, version=3), budget_ms=25)
    assert (decision.outcome, decision.winner.name) == ("promoted", "new")
    assert verdicts(decision)["old"] == "p95 30.0 ms is over the budget of 25 ms"


def test_a_champion_that_cannot_be_judged_goes():
    old = Contender("old", "sha-old", None, None, 0.4, version=3, unfit="it speaks camvid11")
    decision = rule([one("new", 0.7)], old)
    assert decision.outcome == "promoted"
    assert verdicts(decision)["old"] == "it speaks camvid11"
    assert decision.rows[-1]["miou"] is None


def test_a_champion_equal_to_a_candidate_is_that_candidate():
    best, second = one("best", 0.8), one("second", 0.7)
    same = Contender("old", best.sha256, best.form, best.matrices, 0.4, version=3)
    decision = rule([second, best], same)
    assert (decision.outcome, decision.winner.name) == ("unchanged", "best")
    assert len(decision.rows) == 2
    same = Contender("old", second.sha256, second.form, second.matrices, 0.4, version=3)
    assert rule([second, best], same).outcome == "promoted"


def test_a_champions_model_in_another_form_is_another_deployment():
    best = one("best", 0.8)
    elsewhere = timed(10)["certificate"] | {"device_id": "there"}
    newer = timed(10)["certificate"] | {"versions": {"onnxruntime": "0"}}
    for other in ({"threads": 1}, {"certificate": elsewhere}, {"certificate": newer}):
        same = Contender("old", best.sha256, timed(10, **other), best.matrices, 0.4, version=3)
        assert rule([best], same).outcome == "promoted"
    assert rule([best], same).reason == (
        "best: mIoU 66.7%, p95 10.0 ms: the champion's model, deployed anew: as onnxruntime 1 float32, 2 threads, cpu, "
        "on here, which was onnxruntime 0 float32, 2 threads, cpu, on here"
    )


# ---- the stage -------------------------------------------------------------------------------------------------------


def drawn(folder: Path, number: int, split: str) -> Scene:
    """A scene whose labels are what the brightest channel says, but for its top rows: void."""
    pixels = brightest.picture(number)
    label = brightest.answer(pixels)
    label[:4] = 255
    image = brightest.save(folder / "data" / "raw" / f"{split}{number}.png", pixels)
    mask = brightest.save(folder / "data" / "remapped" / "streets" / "labels" / split / f"{number}.png", label)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (mask, image)]
    return Scene(split, image.relative_to(folder), mask.relative_to(folder), 24, 32, f"d{number}", *digests)


@pytest.fixture
def project(workspace, mlflow_uri, unique):
    """A project in which everything before promote has run: two candidates, of which `good` is the better."""
    scenes = [drawn(workspace, number, split) for number, split in enumerate(("train", "val", "val", "test"))]
    write_index(index_path("streets"), scenes)
    profile = [
        {
            "split": scene.split,
            "image": scene.image.as_posix(),
            "image_sha256": scene.image_sha256,
            "label_sha256": scene.label_sha256,
        }
        for scene in scenes
    ]
    paths.PROFILE.mkdir(parents=True)
    pd.DataFrame(profile).to_csv(paths.PROFILE / "scenes.csv", index=False)
    change(target={"name": unique, "threads": 1})
    evaluated(good=0.9, fair=0.7)
    return workspace


def change(**sections) -> config.Config:
    """Write other settings to params.yaml and read it."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    for section, settings in sections.items():
        values[section] |= settings
    Path("params.yaml").write_text(yaml.safe_dump(values))
    return config.read()


def evaluated(**rights: float) -> None:
    """What evaluate leaves, for candidates of these names and accuracies. Names make different ONNX bytes."""
    (paths.EVALUATE / "scenes").mkdir(parents=True, exist_ok=True)
    entries = []
    for name, right in rights.items():
        model = brightest.write(paths.EXPORT / "finalists" / name / "model.onnx")
        for file in ("weights.safetensors", "recipe.json"):
            (model.parent / file).write_text(name)
        graph = onnx.load(model)
        graph.doc_string = name
        onnx.save(graph, model)
        matrices = confusions(right, scenes=2, classes=19)
        np.savez_compressed(paths.EVALUATE / "scenes" / f"{name}.npz", val=matrices, test=matrices)
        entries.append(entry(name, model, Contender("", "", None, matrices, None).miou))
    (paths.EVALUATE / "candidates.json").write_text(json.dumps(entries))
    (paths.EVALUATE / "metrics.json").write_text(json.dumps({"leader": max(rights, key=rights.__getitem__)}))
    (paths.EVALUATE / "overlays").mkdir(exist_ok=True)
    brightest.save(paths.EVALUATE / "overlays" / "best.png", brightest.picture(1))


def entry(name: str, model: Path, miou: float, p95: float = 2.0) -> dict:
    times = {"p50_ms": 1.0, "p95_ms": p95, "p99_ms": 3.0}
    certificate = {
        "engine": "onnxruntime",
        "device_id": device.device_id(),
        "fingerprint": device.fingerprint(),
        "versions": device.versions(),
        "input": [24, 32],
        "image": [24, 32],
        "n": 100,
        **times,
        "p95_low_ms": 1.9,
        "p95_high_ms": 2.1,
        "stable": True,
        "parts": dict.fromkeys(("preprocess", "inference", "postprocess"), times),
    }
    form = {"engine": "onnxruntime", "precision": "float32", "threads": 1, "device": "cpu"}
    shares = dict.fromkeys(("pixel_accuracy", "mean_accuracy", "mean_dice"), 0.6)
    scores = {"miou": miou, **shares, "iou": dict.fromkeys(SPACE.classes, miou), "classes_present": 19}
    return {
        "name": name,
        "network": "enet",
        "loss": "focal",
        "crop": 0.75,
        "learning_rate": 0.01,
        "training": f"training-{name}",
        "onnx": str(model),
        "onnx_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "input": {"height": 24, "width": 32},
        "forms": [form | {"certificate": certificate, "val_miou": miou, "valid": True, "why": ""}],
        "form": 0,
        "val": scores,
        "test": scores,
        "official": None,
        "elsewhere": {},
        "protocol": {
            "space": SPACE.name,
            "val": "official splits",
            "splits": {"train": 1, "val": 2, "test": 1},
            "resolution": "at the labels' own resolution",
            "pretraining": "none",
        },
    }


def decided() -> dict:
    return json.loads((paths.PROMOTE / "decision.json").read_text())


def state_of(name: str) -> tuple:
    """All that the registry knows of a model."""
    with tracking.open_registry() as registry:
        versions = registry.versions(name)
        return [(one.number, dict(one.tags), one.description, one.aliases) for one in versions], registry.reigns(name)


def test_the_first_promotion_and_all_its_records(project, unique):
    promote.run(config.read())
    assert decided()["outcome"] == "promoted"
    assert decided()["champion_version"] == 1
    versions, reigns = state_of(unique)
    ((number, tags, description, aliases),) = versions
    assert (number, aliases) == (1, ("champion",))
    assert description == Path("models/promote/card.md").read_text()
    for text in (
        "**good: mIoU 81.8%, p95 2.0 ms",
        "| fair |",
        "28.",
        f"within {config.read().target.budget_ms:g} ms",
        "| class | floor | good | fair |",
    ):
        assert text in description
    assert tags["roadseg.val_miou"] == "0.8182"
    assert (
        tags["roadseg.onnx_sha256"] == hashlib.sha256(Path("models/promote/bundle/model.onnx").read_bytes()).hexdigest()
    )
    assert [(reign["version"], reign["after"]) for reign in reigns] == [(1, None)]
    bundle.verify(paths.PROMOTE / "bundle")


def test_promoting_again_changes_nothing(project, unique):
    promote.run(config.read())
    before, kept = state_of(unique), (paths.PROMOTE / "bundle" / "bundle.json").read_bytes()
    promote.run(config.read())
    assert decided()["outcome"] == "unchanged"
    assert state_of(unique) == before
    assert (paths.PROMOTE / "bundle" / "bundle.json").read_bytes() == kept


def test_a_better_candidate_takes_over_and_the_history_grows(project, unique):
    promote.run(config.read())
    evaluated(best=0.95, good=0.9)
    promote.run(config.read())
    versions, reigns = state_of(unique)
    assert [(number, aliases) for number, _, _, aliases in versions] == [(1, ()), (2, ("champion",))]
    assert [(reign["version"], reign["after"]) for reign in reigns] == [(1, None), (2, 1)]
    assert "the champion was good (version 1) with mIoU 81.8%" in decided()["reason"]


def test_a_champion_of_an_earlier_run_is_judged_on_todays_scenes(project, unique, monkeypatch):
    promote.run(config.read())
    evaluated(other=0.6)
    # The champion is judged on the real labels, which show three of the 19 classes: today's candidate must be as well.
    real = judged(project)
    np.savez_compressed(paths.EVALUATE / "scenes" / "other.npz", val=spoiled(real), test=real)
    promote.run(config.read())
    assert decided()["outcome"] == "kept"
    assert decided()["champion_version"] == 1
    assert decided()["contenders"][0]["miou"] == 1.0, "judged with its own ids, which are the labels"
    assert len(state_of(unique)[0]) == 1
    bundle.verify(paths.PROMOTE / "bundle")
    monkeypatch.setattr(champion.judge, "judge", lambda *_, **__: pytest.fail("it was judged already"))
    promote.run(config.read())


def test_a_bundle_kept_from_another_store_is_not_todays_champion(project, unique):
    """A store that was made anew has a version 1 as well."""
    for _ in range(2):  # the second fetches the champion
        promote.run(config.read())
    (kept,) = Path(".state/champion", unique).iterdir()
    kept.rename(kept.with_name("0" * 16))
    promote.run(config.read())
    assert kept.is_dir(), "fetched from the registry, by its own content"


def test_results_go_to_the_run_of_their_own_training(project, unique):
    """Two trainings of one name: another number of epochs, say. The pictures are the leader's."""
    evaluated(**{unique: 0.9, f"second-{unique}": 0.8})
    with tracking.connect() as tracker:
        for key in (f"training-{unique}", f"another-{unique}"):
            with tracker.parent("search", key, f"finalist-{unique}", {"roadseg.finalist": unique}):
                pass
        promote.run(config.read())
        assert not tracker.latest({"roadseg.key": f"another-{unique}", "roadseg.space": SPACE.name})
        runs = [tracker.latest({"roadseg.key": f"training-{name}"}) for name in (unique, f"second-{unique}")]
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracker.uri, tracker.uri)
    kept = [[one.path for one in client.list_artifacts(run.id, "evaluate")] for run in runs]
    assert kept == [["evaluate/overlays"], []]


def test_no_fit_candidate_is_a_failure_though_a_champion_reigns(project, unique):
    promote.run(config.read())
    evaluated(other=0.6)
    real = judged(project)
    np.savez_compressed(paths.EVALUATE / "scenes" / "other.npz", val=spoiled(real), test=real)
    (only,) = json.loads((paths.EVALUATE / "candidates.json").read_text())
    only["forms"][0]["certificate"]["p95_ms"] = 500.0
    (paths.EVALUATE / "candidates.json").write_text(json.dumps([only]))
    expected = r"the nearest is other: p95 500\.0 ms is over the budget .*; version 1 stays champion: change `target`"
    with pytest.raises(StageFailure, match=expected):
        promote.run(config.read())


def test_a_champion_from_another_machine_is_timed_here_once(workspace, monkeypatch):
    from roadseg.deploy import latency

    session = engines.open_session(brightest.write(Path("model.onnx")), "onnxruntime", "float32", 1)
    own = entry("good", Path("model.onnx"), 0.5)["forms"][0]["certificate"]
    assert champion._certificate(session, brightest.picture(1), own) == own
    elsewhere = own | {"device_id": "cpu-of-another"}
    timed_here = champion._certificate(session, brightest.picture(1), elsewhere)
    assert timed_here["device_id"] == device.device_id()
    monkeypatch.setattr(latency, "certify", lambda *_: pytest.fail("it was timed already"))
    assert champion._certificate(session, brightest.picture(1), elsewhere) == timed_here


def test_a_champions_certificate_is_of_images_of_one_size(workspace):
    own = entry("good", brightest.write(Path("model.onnx")), 0.5)["forms"][0]["certificate"]
    session = engines.open_session(Path("model.onnx"), "onnxruntime", "float32", 1)
    assert champion._certificate(session, brightest.picture(1, 48, 64), own)["image"] == [48, 64]


def rewritten(**changes) -> None:
    """candidates.json with `good`'s forms, and whatever else, as they are given."""
    entries = json.loads((paths.EVALUATE / "candidates.json").read_text())
    entries[0] |= changes
    (paths.EVALUATE / "candidates.json").write_text(json.dumps(entries))


def test_a_target_with_other_threads_gets_a_version_in_their_form(project, unique):
    promote.run(config.read())
    (form,) = json.loads((paths.EVALUATE / "candidates.json").read_text())[0]["forms"]
    rewritten(forms=[form | {"threads": 2}])
    promote.run(change(target={"threads": 2}))
    assert (decided()["outcome"], decided()["champion_version"]) == ("promoted", 2)
    content = json.loads((paths.PROMOTE / "bundle" / "bundle.json").read_text())
    assert content["forms"][content["form"]]["threads"] == 2
    assert state_of(unique)[0][1][1]["roadseg.form"] == "onnxruntime float32, 2 threads, cpu"


def test_a_champion_stays_in_its_form_while_that_is_fit(project, unique):
    evaluated(good=0.9)
    promote.run(config.read())
    (form,) = json.loads((paths.EVALUATE / "candidates.json").read_text())[0]["forms"]
    faster = form | {"engine": "openvino", "certificate": form["certificate"] | {"p95_ms": 1.0}}
    rewritten(forms=[form, faster], form=1)
    promote.run(config.read())
    assert decided()["outcome"] == "unchanged"
    winner = decided()["contenders"][0]
    assert (winner["form"], winner["p95_ms"]) == ("onnxruntime float32, 1 threads, cpu", 2.0)
    assert winner["miou"] == 1.0, "judged in that form, on the scenes themselves"
    rewritten(forms=[form | {"valid": False, "why": "unstable"}, faster], form=1)
    promote.run(config.read())
    assert (decided()["outcome"], decided()["champion_version"]) == ("promoted", 2)
    assert "deployed anew: as openvino" in decided()["reason"]


def test_a_champion_in_a_form_that_todays_target_is_not_is_out(project, unique):
    promote.run(config.read())
    evaluated(other=0.6)
    (form,) = json.loads((paths.EVALUATE / "candidates.json").read_text())[0]["forms"]
    rewritten(forms=[form | {"threads": 2}])
    promote.run(change(target={"threads": 2}))
    assert decided()["outcome"] == "promoted"
    assert "it is deployed as onnxruntime float32, 1 thread, cpu, which today's target is not" in decided()["reason"]


def test_later_results_of_a_finalist_replace_those_that_its_run_has(project, unique, mlflow_uri):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_uri, mlflow_uri)
    evaluated(**{unique: 0.9})
    promote.run(config.read())
    run = client.get_model_version_by_alias(unique, "champion").run_id
    (only,) = json.loads((paths.EVALUATE / "candidates.json").read_text())
    rewritten(test=only["test"] | {"miou": 0.1234})
    promote.run(config.read())
    assert client.get_run(run).data.metrics["deployed_test_miou"] == 0.1234


def test_the_alias_moves_last(project, unique, monkeypatch):
    """Killed where it writes the reign down: the champion is who it was."""
    from mlflow.tracking import MlflowClient

    promote.run(config.read())
    evaluated(best=0.95, good=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "update_registered_model", lambda *_, **__: pytest.exit("killed"))
        with pytest.raises(pytest.exit.Exception):
            promote.run(config.read())
    assert [aliases for _, _, _, aliases in state_of(unique)[0]] == [("champion",), ()]
    promote.run(config.read())
    assert [aliases for _, _, _, aliases in state_of(unique)[0]] == [(), ("champion",)]
    assert len(state_of(unique)[1]) == 2


def judged(project) -> np.ndarray:
    from roadseg.metrics import confusion

    answers = [brightest.answer(brightest.picture(number)) for number in (1, 2)]
    truth = [np.where(np.arange(24)[:, None] < 4, 255, ids).astype(np.uint8) for ids in answers]
    return np.stack([confusion(ids, label, 19) for ids, label in zip(answers, truth)])


def spoiled(matrices: np.ndarray) -> np.ndarray:
    """The same labels, a tenth of each predicted as the last class."""
    worse = matrices.copy()
    for matrix in worse:
        for place in range(3):
            moved = matrix[place, place] // 10
            matrix[place, place] -= moved
            matrix[place, 18] += moved
    return worse


def test_a_champion_trained_on_todays_validation_scenes_is_out(project, unique):
    promote.run(config.read())
    evaluated(other=0.6)
    frame = pd.read_csv(paths.PROFILE / "scenes.csv")
    frame.loc[frame["split"] == "val", "image_sha256"] = frame.loc[0, "image_sha256"]
    frame.to_csv(paths.PROFILE / "scenes.csv", index=False)
    promote.run(config.read())
    assert decided()["outcome"] == "promoted"
    assert "it was trained on 1 of today's 1 validation scenes" in decided()["reason"]


def test_a_killed_promotion_is_taken_up(project, unique, monkeypatch):
    from roadseg.tracking.registry import Registry

    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "crown", die)
        with pytest.raises(KeyboardInterrupt):
            promote.run(config.read())
    assert not paths.PROMOTE.joinpath("decision.json").exists()
    promote.run(config.read())
    versions, reigns = state_of(unique)
    assert [(number, aliases) for number, _, _, aliases in versions] == [(1, ("champion",))]
    assert len(reigns) == 1


def test_an_experiment_decides_and_leaves_the_registry_alone(project, unique, monkeypatch, capsys):
    promote.run(config.read())
    before = state_of(unique)
    evaluated(best=0.95, good=0.9)
    monkeypatch.setenv("DVC_EXP_NAME", "trial")
    promote.run(config.read())
    assert decided()["outcome"] == "promoted"
    assert decided()["registry"] == "this is a DVC experiment"
    assert "registry left alone: this is a DVC experiment" in " ".join(capsys.readouterr().out.split())
    assert state_of(unique) == before
    bundle.verify(paths.PROMOTE / "bundle")


def test_without_tracking_the_bundle_is_still_made(project, monkeypatch):
    monkeypatch.setenv("ROADSEG_TRACKING", "off")
    promote.run(config.read())
    assert decided()["registry"] == "ROADSEG_TRACKING=off"
    bundle.verify(paths.PROMOTE / "bundle")


def test_nobody_within_the_budget_fails_with_the_nearest(project, unique):
    promote.run(config.read())
    before = state_of(unique)
    with pytest.raises(StageFailure, match=r"p95 2\.0 ms is over the budget of 1 ms; version 1 stays champion"):
        promote.run(change(target={"budget_ms": 1.0}))
    assert state_of(unique) == before


def test_another_machines_latency_is_not_used(project):
    entries = json.loads((paths.EVALUATE / "candidates.json").read_text())
    for one_entry in entries:
        one_entry["forms"][0]["certificate"]["device_id"] = "cpu-of-another"
    (paths.EVALUATE / "candidates.json").write_text(json.dumps(entries))
    with pytest.raises(
        StageFailure, match=r"measured on cpu-of-another and this is .*: run `dvc repro -f -s evaluate`"
    ):
        promote.run(config.read())


def test_a_floor_for_no_class_is_a_mistake(project):
    with pytest.raises(UserError, match=r"target\.floors: 'cars' is no class of cityscapes19; valid: road, sidewalk"):
        promote.run(change(target={"floors": {"cars": 0.5}}))


def test_evaluate_is_written_to_the_finalists_own_run(project, unique, mlflow_uri):
    evaluated(**{unique: 0.9})
    with (
        tracking.connect() as tracker,
        tracker.parent("search", unique, "search") as parent,
        parent.child(f"training-{unique}", f"finalist-{unique}", tags={"roadseg.finalist": unique}) as run,
    ):
        run.metrics({"val_miou": 0.5})
    promote.run(config.read())
    from mlflow.tracking import MlflowClient

    client = MlflowClient(mlflow_uri, mlflow_uri)
    record = client.get_run(run.id)
    assert record.info.status == "FINISHED"
    assert record.data.metrics["deployed_val_miou"] == pytest.approx(0.8182, abs=1e-4)
    assert record.data.metrics["p95_ms_onnxruntime_float32"] == 2.0
    assert client.get_model_version_by_alias(unique, "champion").run_id == run.id


def test_mlflow_loads_and_predicts_with_the_registered_model(project, unique, mlflow_uri):
    """As a deployer does: from elsewhere, without roadseg."""
    promote.run(config.read())
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import mlflow, numpy as np\n"
        "sys.modules['roadseg'] = None\n"
        f"model = mlflow.pyfunc.load_model('models:/{unique}@champion')\n"
        "images = np.random.default_rng(1).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)\n"
        "ids = model.predict(images)\n"
        "assert ids.dtype == np.uint8 and (ids == images.argmax(3)).all(), ids\n"
        "print(model.metadata.signature)"
    )
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    result = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "uint8" in result.stdout
    assert not list(elsewhere.glob("*.db"))


def test_the_frontier_shows_versions_and_candidates_once(project, unique, capsys):
    promote.run(config.read())
    frontier.run(config.read())
    shown = " ".join(capsys.readouterr().out.split())
    assert "champion" in shown and "81.8%" in shown and "1 more are slower and no better" in shown
    assert Path("models/frontier.png").stat().st_size > 1000

import hashlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from roadseg import checkpoint, config, labels, metrics, nets, paths
from roadseg.deploy import judge, latency, tables
from roadseg.deploy.engines import REFERENCE, Form, Session
from roadseg.errors import StageFailure, UserError
from roadseg.scenes import augment
from roadseg.scenes.index import Scene, read_index, write_index
from roadseg.stages import evaluate, export
from tests import brightest

PROJECT = paths.Path(__file__).resolve().parents[1]
SPACE = labels.load("cityscapes19")
SIZE = (24, 32)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Streets' place in an empty project: two scenes a split, three quarters of each label right, a corner ignored."""
    monkeypatch.chdir(tmp_path)
    scenes = []
    for number in range(6):
        split = ("train", "val", "test")[number // 2]
        pixels = brightest.picture(number, *SIZE)
        image = brightest.save(tmp_path.joinpath(f"image{number}.png"), pixels).relative_to(tmp_path)
        ids = brightest.answer(pixels)
        ids[:, :8] = (ids[:, :8] + 1) % 3  # a quarter of the columns is wrong
        ids[:4, 8:] = labels.IGNORE
        label = brightest.save(tmp_path.joinpath(f"label{number}.png"), ids).relative_to(tmp_path)
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (label, image)]
        scenes.append(Scene(split, image, label, *SIZE, "drive", *digests))
    (paths.REMAPPED / "streets").mkdir(parents=True)
    write_index(paths.REMAPPED / "streets" / "index.csv", scenes)
    paths.PROFILE.mkdir(parents=True)
    rows = [
        ("streets", scene.split, str(scene.image), str(scene.label), *SIZE, scene.sequence, 20.0 * number)
        for number, scene in enumerate(scenes)
    ]
    columns = ["source", "split", "image", "label", "image_height", "image_width", "sequence", "brightness"]
    shares = {f"share_{name}": 1 / 3 if place < 3 else 0.0 for place, name in enumerate(SPACE.classes)}
    frame = pd.DataFrame(rows, columns=columns).assign(**shares)
    frame.to_csv(paths.PROFILE / "scenes.csv", index=False)
    monkeypatch.setattr(latency, "WARM_UP_S", 0.0)
    monkeypatch.setattr(latency, "ROUND_S", 0.0)
    monkeypatch.setattr(latency, "certify", partial(latency.certify, max_seconds=0.02))
    return tmp_path


def scenes(split):
    return [scene for scene in read_index(paths.REMAPPED / "streets" / "index.csv") if scene.split == split]


def finalist(root, name, network="enet"):
    folder = root / name
    folder.mkdir(parents=True)
    recipe = {"name": name, "network": network, "loss": "focal", "crop": 0.5, "learning_rate": 0.01, "training": "0123"}
    recipe |= {
        "initial": "random",
        "distil": None,
        "space": SPACE.name,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "val_miou": 0.5,
    }
    (folder / "recipe.json").write_text(json.dumps(recipe))
    return folder


def settings(**target):
    values = config.read(PROJECT / "params.yaml")
    return values.model_copy(update={"target": values.target.model_copy(update={"threads": 1, **target})})


# ---- judging


def test_judge_counts_what_a_naive_loop_counts(project):
    session = Session(brightest.write(project / "model.onnx"), REFERENCE)
    verdict = judge.judge(session, scenes("val"), 19)
    expected, bands = np.zeros((2, 19, 19), np.int64), np.zeros((3, 19, 19), np.int64)
    for place, scene in enumerate(scenes("val")):
        image, label = judge.read(scene)
        for row in range(SIZE[0]):
            for column in range(SIZE[1]):
                if label[row, column] != 255:
                    expected[place, label[row, column], image[row, column].argmax()] += 1
                    bands[row // (SIZE[0] // 3), label[row, column], image[row, column].argmax()] += 1
    assert np.array_equal(verdict.scenes, expected)
    assert np.array_equal(verdict.bands, bands)


def test_judge_works_at_the_labels_resolution(project):
    """A label twice the size of its image: each id counts four times."""
    session = Session(brightest.write(project / "model.onnx"), REFERENCE)
    (scene, _) = scenes("val")
    _, label = judge.read(scene)
    brightest.save(project / "large.png", label.repeat(2, axis=0).repeat(2, axis=1))
    large = replace(scene, label=paths.Path("large.png"))
    small, large = (judge.judge(session, [one], 19).scenes for one in (scene, large))
    assert np.array_equal(large, 4 * small)


def test_judge_names_what_it_cannot_read(project):
    session = Session(brightest.write(project / "model.onnx"), REFERENCE)
    (scene, _) = scenes("val")
    with pytest.raises(UserError, match=r"image2.png has no label"):
        judge.judge(session, [replace(scene, label=None)], 19)
    with pytest.raises(UserError, match=r"gone.png is missing"):
        judge.judge(session, [replace(scene, image=paths.Path("gone.png"))], 19)
    with pytest.raises(UserError, match=r"lost.png is missing"):
        judge.judge(session, [replace(scene, label=paths.Path("lost.png"))], 19)


# ---- the stage


def test_stage_writes_what_promote_and_dvc_read(project):
    folder = finalist(paths.EXPORT / "finalists", "right")
    brightest.write(folder / "model.onnx")
    evaluate.run(settings())
    (candidate,) = json.loads((paths.EVALUATE / "candidates.json").read_text())
    # Three classes of equal share, a quarter of the columns wrong in a cycle: 3/4 right pixels; IoU 0.75 / 1.25.
    matrices = np.load(paths.EVALUATE / "scenes" / "right.npz")
    assert matrices["val"].shape == matrices["test"].shape == (2, 19, 19)
    labelled = 2 * (24 * 8 + 20 * 24)
    wrong = 2 * 24 * 8
    assert candidate["val"]["pixel_accuracy"] == pytest.approx(1 - wrong / labelled)
    assert candidate["val"]["miou"] == metrics.scores(matrices["val"]).miou
    assert candidate["val"]["classes_present"] == 3
    assert candidate["val"]["iou"]["sky"] is None
    assert candidate["protocol"] == {
        "space": "cityscapes19",
        "sources": ["streets"],
        "val": "official splits",
        "splits": {"train": 2, "val": 2, "test": 2},
        "resolution": "at the labels' own resolution, which is the input's",
        "pretraining": "none",
    }
    assert candidate["onnx"] == "models/export/finalists/right/model.onnx"
    assert candidate["input"] == {"height": 24, "width": 32}
    assert {"onnxruntime", "openvino"} == {form["engine"] for form in candidate["forms"]}
    assert all(form["valid"] and form["why"] == "" for form in candidate["forms"])
    p95s = [form["certificate"]["p95_ms"] for form in candidate["forms"]]
    assert candidate["form"] == p95s.index(min(p95s))
    summary = json.loads((paths.EVALUATE / "metrics.json").read_text())
    assert (summary["leader"], summary["val_miou"]) == ("right", candidate["val"]["miou"])
    files = {path.relative_to(paths.EVALUATE).as_posix() for path in paths.EVALUATE.rglob("*") if path.is_file()}
    assert files == {
        *("candidates.json", "metrics.json", "classes.csv", "confusion.csv", "latency.csv", "frontier.csv"),
        "leader.csv",
        *("confusion.png", "frontier.png", "scenes/right.npz"),
        *("slices.csv", "slices.png", "confused.csv", "across.csv", "worst.csv"),
        *("overlays/best.png", "overlays/median.png", "overlays/worst-1.png", "overlays/worst-2.png"),
    }
    confusion = pd.read_csv(paths.EVALUATE / "confusion.csv")
    assert confusion.groupby("split")["pixels"].sum().to_dict() == {"val": labelled, "test": labelled}
    assert pd.read_csv(paths.EVALUATE / "latency.csv")["chosen"].sum() == 1
    leader = pd.read_csv(paths.EVALUATE / "leader.csv").set_index("class")
    assert list(leader.index) == list(SPACE.classes)
    assert leader["val_iou"].mean() == pytest.approx(candidate["val"]["miou"])


def test_what_is_only_reported_is_reported(project):
    """A source that is never trained on, an official val beside blocks, and scenes without labels."""
    rows = read_index(paths.REMAPPED / "streets" / "index.csv")
    (paths.REMAPPED / "kitti").mkdir()
    unlabelled = replace(rows[1], split="test", label=None, label_sha256="")
    write_index(paths.REMAPPED / "kitti" / "index.csv", [rows[2], unlabelled])
    write_index(
        paths.REMAPPED / "streets" / "index.csv", [rows[0], replace(rows[3], split="official"), *rows[4:], rows[3]]
    )
    facts = pd.read_csv(paths.PROFILE / "scenes.csv")
    facts.loc[2, ["source", "split"]] = "kitti", "elsewhere"
    facts.to_csv(paths.PROFILE / "scenes.csv", index=False)
    folder = finalist(paths.EXPORT / "finalists", "right")
    brightest.write(folder / "model.onnx")
    given = settings()
    data = given.data.model_copy(update={"sources": ("streets", "kitti"), "weights": {"kitti": 0.0}})
    evaluate.run(given.model_copy(update={"data": data}))
    (candidate,) = json.loads((paths.EVALUATE / "candidates.json").read_text())
    assert candidate["protocol"]["sources"] == ["streets"]
    assert candidate["protocol"]["splits"] == {"train": 1, "val": 1, "test": 2, "official": 1, "elsewhere": 1}
    matrices = np.load(paths.EVALUATE / "scenes" / "right.npz")
    assert candidate["elsewhere"]["kitti"]["miou"] == metrics.scores(matrices["elsewhere"]).miou
    assert candidate["official"]["miou"] == metrics.scores(matrices["official"]).miou
    summary = json.loads((paths.EVALUATE / "metrics.json").read_text())
    assert summary["miou_on_kitti"] == candidate["elsewhere"]["kitti"]["miou"]
    assert summary["miou_on_streets"] == candidate["val"]["miou"]
    across = pd.read_csv(paths.EVALUATE / "across.csv")
    assert across[["trained_on", "source", "split"]].values.tolist() == [
        ["streets", "streets", "val"],
        ["streets", "streets", "test"],
        ["streets", "streets", "official"],
        ["streets", "kitti", "elsewhere"],
    ]
    assert (paths.EVALUATE / "overlays" / "kitti-1.png").is_file()
    (prediction,) = (paths.EVALUATE / "predictions").rglob("*.png")
    assert prediction.relative_to(paths.EVALUATE).as_posix() == "predictions/kitti/test/image1.png"
    assert np.array_equal(np.asarray(Image.open(prediction)), brightest.answer(brightest.picture(1, *SIZE)))


def test_scenes_of_one_name_and_drives_that_are_called_na_stay_apart(project):
    rows = read_index(paths.REMAPPED / "streets" / "index.csv")
    drives = dict(zip((row.image.as_posix() for row in rows), ["NA", "None"] * 3))
    alone = []
    for drive in ("a", "b"):
        image = brightest.save(project / drive / "0001.png", brightest.picture(7, *SIZE)).relative_to(project)
        alone.append(replace(rows[5], image=image, label=None, label_sha256="", sequence=drive))
    listed = [replace(row, sequence=drives[row.image.as_posix()]) for row in rows]
    write_index(paths.REMAPPED / "streets" / "index.csv", [*listed, *alone])
    facts = pd.read_csv(paths.PROFILE / "scenes.csv")
    facts.assign(sequence=facts["image"].map(drives)).to_csv(paths.PROFILE / "scenes.csv", index=False)
    brightest.write(finalist(paths.EXPORT / "finalists", "right") / "model.onnx")
    evaluate.run(settings())
    predicted = sorted(path.name for path in (paths.EVALUATE / "predictions/streets/test").iterdir())
    assert predicted == ["a_0001.png", "b_0001.png"]
    slices = pd.read_csv(paths.EVALUATE / "slices.csv", keep_default_na=False).query("split == 'val'")
    assert slices.loc[slices["by"] == "sequence", "slice"].tolist() == ["streets NA", "streets None"]


def test_no_exported_finalist_is_said(project):
    with pytest.raises(UserError, match="models/export/finalists holds no finalist"):
        evaluate.run(settings())


def form(p95_ms, valid=True):
    return {"certificate": {"p95_ms": p95_ms}, "valid": valid}


def test_fastest_valid_form():
    assert evaluate.fastest([form(9), form(3, valid=False), form(5)]) == 2
    assert evaluate.fastest([form(9, valid=False)]) is None


def certified(stable):
    times = {"p50_ms": 1, "p95_ms": 2, "p99_ms": 3, "p95_low_ms": 1.5, "p95_high_ms": 4, "stable": stable}
    where = {"device_id": "d", "fingerprint": {}, "versions": {}, "input": (1, 1), "image": (1, 1)}
    return latency.Certificate("onnxruntime", "float32", 1, "cpu", **where, warm_up=5, n=9, **times, parts={}, load=0)


def test_a_form_is_refused_for_accuracy_and_for_unrest():
    strict, lenient = (settings(accept_unstable=accept).target for accept in (False, True))
    assert evaluate.objection(0.5009, 0.5, certified(True), strict) == ""
    why = "val mIoU 49.80% is more than 0.1 point from float32's 50.00%"
    assert evaluate.objection(0.498, 0.5, certified(True), lenient) == why
    assert evaluate.objection(0.5, 0.5, certified(False), lenient) == ""
    assert evaluate.objection(0.5, 0.5, certified(False), strict) == (
        "unstable latency: the p95 is anywhere from 1.5 to 4.0 ms (target.accept_unstable is off)"
    )


def entry(name, miou, *forms, chosen=0):
    times = {"p50_ms": 1, "p99_ms": 9, "p95_low_ms": 1, "p95_high_ms": 9, "stable": True, "n": 9, "parts": {}}
    rows = [
        {**vars(Form(engine, "float32", 1, "cpu")), "certificate": {**times, "p95_ms": p95_ms}, "val_miou": miou}
        | {"valid": valid, "why": "" if valid else "no"}
        for engine, p95_ms, valid in forms
    ]
    return {"name": name, "network": name, "forms": rows, "form": chosen, "val": {"miou": miou}}


CANDIDATES = [
    entry("small", 0.4, ("onnxruntime", 5.0, True), ("openvino", 8.0, True)),
    entry("middle", 0.6, ("onnxruntime", 30.0, True), ("openvino", 3.0, False)),
    entry("worse", 0.5, ("onnxruntime", 40.0, True)),
    entry("large", 0.7, ("onnxruntime", 90.0, True)),
    entry("refused", 0.9, ("onnxruntime", 1.0, False), chosen=None),
]


def test_leader_is_the_best_within_the_budget_else_the_best():
    assert evaluate.leader(CANDIDATES, 50)["name"] == "middle"
    assert evaluate.leader(CANDIDATES, 100)["name"] == "large"
    assert evaluate.leader(CANDIDATES, 1)["name"] == "refused"


def test_frontier_holds_what_no_valid_form_beats():
    frame = tables.frontier(CANDIDATES, 50)
    assert frame.loc[frame["on_frontier"], "name"].tolist() == ["small", "middle", "large"]
    assert frame.loc[~frame["within_budget"], "name"].tolist() == ["large"]
    assert "refused" not in set(frame["name"])


# ---- export


class Echo(nn.Module):
    """Its logits are the bytes that the image was made of, and 16 classes that never win."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(augment.MEAN).view(1, 3, 1, 1))
        self.std = nn.Parameter(torch.tensor(augment.STD).view(1, 3, 1, 1))

    def forward(self, image):
        pixels = ((image * self.std + self.mean) * 255).round()
        return torch.cat([pixels, pixels[:, :1].expand(-1, 16, -1, -1) - 1000], dim=1)


@pytest.fixture
def trained(project, monkeypatch):
    """A finalist of a network that NumPy can follow, and what exporting it makes."""
    monkeypatch.setitem(nets.NETS, "enet", lambda classes: Echo())
    checkpoint.save(finalist(paths.TRAIN / "finalists", "echo") / "weights.pt", Echo().state_dict())
    return project


def exported(write):
    """A stand-in for `to_onnx` that writes the model that NumPy can follow, changed by `write`."""
    return lambda net, *, height, width, mean, std, path: write(path, height, width)


def test_export_compares_with_the_network(trained, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", exported(brightest.write))
    export.run(settings())
    (row,) = json.loads((paths.EXPORT / "agreement.json").read_text()).values()
    matrix = judge.judge(
        Session(paths.EXPORT / "finalists" / "echo" / "model.onnx", REFERENCE), scenes("val"), 19
    ).scenes
    assert row == {
        "input": {"height": 24, "width": 32},
        "agreement": 1.0,
        "network_miou": metrics.scores(matrix).miou,
        "onnx_miou": metrics.scores(matrix).miou,
        "trained_miou": 0.5,
    }
    assert (paths.EXPORT / "finalists" / "echo" / "recipe.json").is_file()


def test_export_that_says_something_else_fails(trained, monkeypatch):
    def dark(path, height, width):
        """The same graph with ArgMin: the darkest channel."""
        model = onnx.load(brightest.write(path, height, width))
        model.graph.node[1].op_type = "ArgMin"
        path.write_bytes(model.SerializeToString())

    monkeypatch.setattr(export, "to_onnx", exported(dark))
    with pytest.raises(StageFailure, match=r"export: echo: ONNX agrees with its network on .*99.9% must"):
        export.run(settings())
    assert not (paths.EXPORT / "finalists").exists()

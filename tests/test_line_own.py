"""The whole line on somebody's own recordings, and its first half on real scenes."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg import labels
from roadseg.scenes.streets import draw
from tests import segnet
from tests.line import DRAWN, MIRROR, NAME, STAGES, Project, ran


def odd_layout(root: Path) -> tuple[int, set[str]]:
    """Streets, drawn small, as somebody's own recordings: masks by colour in a tree of their own. How many scenes, and
    the classes that training shows."""
    space = labels.load("cityscapes19")
    colours = np.zeros((256, 3), np.uint8)
    colours[: len(space.colours)] = space.colours
    lut = space.table(labels.raw("cityscapes")).lut
    drawn, shown = list(draw(DRAWN)), set[int]()
    for split, drive, frame, image, ids in drawn:
        add_scene(root, drive, str(frame), image, colours[lut[ids]])
        shown |= set(np.unique(lut[ids]).tolist()) if split == "train" else set()
    return len(drawn), {name for place, name in enumerate(space.classes) if place in shown}


def add_scene(root: Path, drive: str, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    for place, pixels in ((f"rec/{drive}/im {name}.png", image), (f"gt/{drive}-{name}.png", mask)):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / place)


def kitti(path: Path) -> None:
    """A small archive in KITTI's layout: one labelled frame of train and two of val, two without labels."""
    path.parent.mkdir(parents=True)
    frames = [(image, ids) for *_, image, ids in draw(DRAWN)][:5]
    with zipfile.ZipFile(path, "w") as archive:
        for name, (image, ids) in zip(("000000_10", "000150_10", "000151_10"), frames, strict=False):
            archive.writestr(f"training/image_2/{name}.png", segnet.png(image[:, ::-1].copy()))
            archive.writestr(f"training/semantic/{name}.png", segnet.png(ids[:, ::-1].copy()))
        for name, (image, _) in zip(("000000_10", "000001_10"), frames[3:], strict=True):
            archive.writestr(f"testing/image_2/{name}.png", segnet.png(image[::-1].copy()))


def test_a_folder_of_ones_own_trains_end_to_end_and_is_judged_abroad(tmp_path: Path) -> None:
    """Own scenes are trained on, by params.yaml alone, in two processes; KITTI is only evaluated on; new scenes cost
    only themselves."""
    mine = tmp_path / "mine"
    count, shown = odd_layout(mine)
    kitti(tmp_path / "mirror" / "kitti" / "data_semantics.zip")
    space = labels.load("cityscapes19")
    colours = dict(zip(space.classes, space.colours, strict=True))
    folder = {
        "root": str(mine),
        "images": "rec/{sequence}/im {name}.png",
        "masks": "gt/{sequence}-{name}.png",
        "encoding": "colour",
        "space": "cityscapes19",
        "classes": {name: [list(rgb)] for name, rgb in colours.items() if name in shown},
        "void": [[0, 0, 0], *(list(rgb) for name, rgb in colours.items() if name not in shown)],
        "split": {"sequences": {"val": ["val000"], "test": ["test000"]}},
        "expect": {},
    }
    settings = {
        "data.sources": ["folder", "kitti"],
        "data.weights": {"kitti": 0},
        "sources.folder": folder,
        "sources.kitti.expect": None,
        "search.trials": 1,
        "train.processes": 2,
        "target.engines": ["onnxruntime"],
    }
    project = Project(tmp_path / "project", tmp_path / "mirror", **settings)
    assert set(ran(project.run("dvc", "repro"))) == {
        *("fetch@folder", "fetch@kitti", "remap@folder", "remap@kitti"),
        *STAGES[2:],
    }
    assert project.aliases() == [(NAME, "champion", 1)]
    [candidate] = project.json("models/evaluate/candidates.json")
    assert candidate["protocol"]["sources"] == ["folder"]
    assert candidate["protocol"]["splits"]["elsewhere"] == 2
    assert 0 < candidate["elsewhere"]["kitti"]["miou"] < 1
    predictions = project.folder / "models/evaluate/predictions"
    assert [path.relative_to(predictions).as_posix() for path in sorted(predictions.rglob("*.png"))] == [
        "kitti/test/000000_10.png",
        "kitti/test/000001_10.png",
    ]
    assert "kitti" in (project.folder / "models/promote/bundle/MODEL_CARD.md").read_text()

    for name in ("0", "1"):
        image, mask = (
            np.asarray(Image.open(mine / place)) for place in (f"rec/train000/im {name}.png", f"gt/train000-{name}.png")
        )
        add_scene(mine, "train000", f"new{name}", image[:, ::-1], mask[:, ::-1])
    project.run("dvc", "repro", "-s", "-f", "fetch@folder")
    output = project.run("dvc", "repro", "remap@folder")
    assert ran(output) == ["remap@folder"]
    assert f"2 masks remapped, {count} kept from before" in output
    replaced = mine / "gt" / "train000-new0.png"
    replaced.with_suffix(".aside").write_bytes((mine / "gt" / "train000-new1.png").read_bytes())
    replaced.with_suffix(".aside").replace(replaced)
    status = json.loads(project.run("dvc", "status", "--json", "remap@folder"))
    assert "remap@folder" in status, "DVC sees a mask that was replaced"


def test_the_data_stages_on_the_real_mirror(tmp_path: Path) -> None:
    """Up to validation: from there on real scenes are treated like the drawn ones."""
    if not (MIRROR / "camvid").is_dir():
        pytest.skip(f"no real scenes: {MIRROR} is not there")
    project = Project(tmp_path / "project", MIRROR)
    assert ran(project.run("dvc", "repro", "validate")) == STAGES[:4]
    report = project.json("data/validation/report.json")
    assert report["passed"] and report["scenes"] == {"train": 24, "val": 8, "test": 8}
    [leaks] = [check["waived"] for check in report["checks"] if check["check"] == "sequence"]
    assert len(leaks) == 2, "CamVid's own, by name"

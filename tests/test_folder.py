"""A person's own scenes in an odd layout, by params.yaml alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import sources
from roadseg.scenes.index import read_index
from roadseg.stages import fetch, remap
from tests import segnet

ROAD, CAR, SKY = (10, 20, 30), (200, 0, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def mine(workspace: Path) -> Path:
    """Two trips of three frames, masks in a tree of their own, by colour; a file that does not belong."""
    root = workspace / "mine"
    for trip in ("trip-a", "trip b"):
        for number in range(3):
            image = root / "rec" / trip / f"f{number}.jpg"
            mask = root / "truth" / f"{trip}_f{number}.mask.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 24), (number, 0, 0)).save(image)
            painted = np.zeros((24, 32, 3), np.uint8)
            painted[:8], painted[8:16], painted[16:] = SKY, CAR, ROAD
            Image.fromarray(painted).save(mask)
    (root / "notes.txt").write_text("mine")
    return root


def described(**changes: Any) -> dict[str, Any]:
    return {
        "root": "mine",
        "images": "rec/{sequence}/{name}.jpg",
        "masks": "truth/{sequence}_{name}.mask.png",
        "encoding": "colour",
        "space": "cityscapes19",
        "classes": {"road": [ROAD], "car": [CAR]},
        "void": [SKY],
        "split": {"sequences": {"val": ["trip b"]}},
        "expect": {"train": 3, "val": 3},
    } | changes


def settings(space: str | None = None, /, **changes: Any) -> Config:
    return segnet.settings(data__sources=["folder"], data__space=space, sources__folder=described(**changes))


def through(config: Config) -> list[Any]:
    fetch.run(config, "folder")
    remap.run(config, "folder")
    return read_index(Path("data/remapped/folder/index.csv"))


@pytest.mark.parametrize(("space", "road", "car"), [(None, 0, 13), ("camvid11", 3, 8)])
def test_a_folder_goes_through_fetch_and_remap(mine: Path, space: str | None, road: int, car: int) -> None:
    scenes = through(settings(space))
    assert [(scene.split, scene.sequence) for scene in scenes] == [("train", "trip-a")] * 3 + [("val", "trip b")] * 3
    mask = np.asarray(Image.open(scenes[0].label))
    assert mask.tolist() == np.repeat([255, car, road], 8)[:, None].repeat(32, axis=1).tolist()
    assert not Path("data/raw/folder/notes.txt").exists()
    assert (mine / "notes.txt").exists() and len(list(mine.rglob("*.*"))) == 13, "nothing of mine was moved"


def test_ids_instead_of_colours(mine: Path) -> None:
    for path in (mine / "truth").iterdir():
        ids = np.zeros((24, 32), np.uint8)
        ids[8:16], ids[16:] = 7, 200
        Image.fromarray(ids).save(path)
    changes = {"encoding": "index", "classes": {"road": [7], "car": [200]}, "void": [0]}
    mask = np.asarray(Image.open(through(settings(**changes))[0].label))
    assert mask[:, 0].tolist() == [255] * 8 + [0] * 8 + [13] * 8


def test_new_scenes_cost_only_themselves(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from roadseg.scenes import masks

    through(settings())
    read: list[Path] = []
    monkeypatch.setattr(
        masks, "read", lambda path, *a, _read=masks.read, **k: (read.append(path), _read(path, *a, **k))[1]
    )
    Image.new("RGB", (32, 24)).save(mine / "rec" / "trip-a" / "f9.jpg")
    Image.new("RGB", (32, 24), ROAD).save(mine / "truth" / "trip-a_f9.mask.png")
    scenes = through(settings(expect={"train": 4, "val": 3}))
    assert len(scenes) == 7
    assert [path.name for path in read] == ["trip-a_f9.mask.png"]


@pytest.mark.parametrize(
    "order", ["{name}/{sequence}", "{name}@{sequence}", "{sequence}/{sequence}_{name}", "{name}/{name}-{sequence}"]
)
def test_parts_pair_in_any_order_and_may_come_twice(mine: Path, order: str) -> None:
    for path in list((mine / "truth").iterdir()):
        trip, name = path.name.removesuffix(".mask.png").rsplit("_", 1)
        moved = mine / "gt" / f"{order.format(name=name, sequence=trip)}.png"
        moved.parent.mkdir(parents=True, exist_ok=True)
        path.rename(moved)
    scenes = through(settings(masks=f"gt/{order}.png"))
    assert [(scene.split, scene.sequence) for scene in scenes] == [("train", "trip-a")] * 3 + [("val", "trip b")] * 3


def test_recordings_without_masks_are_in_test_and_get_no_label(mine: Path) -> None:
    for number in range(2):
        path = mine / "rec" / "trip-c" / f"f{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 24)).save(path)
    scenes = through(settings(unlabelled="rec/trip-c/{name}.jpg", expect={"train": 3, "val": 3, "test": 2}))
    assert [(scene.split, scene.label) for scene in scenes if scene.label is None] == [("test", None)] * 2
    assert len(scenes) == 8


def test_a_file_that_was_replaced_is_what_is_read(mine: Path) -> None:
    """As editors save: a new file under the old name. What fetch left must show the new one."""
    through(settings())
    fresh = mine / "truth" / "fresh.png"
    Image.new("RGB", (32, 24), ROAD).save(fresh)
    fresh.replace(mine / "truth" / "trip-a_f0.mask.png")
    remap.run(settings(), "folder")
    scenes = read_index(Path("data/remapped/folder/index.csv"))
    assert not np.asarray(Image.open(scenes[0].label)).any(), "road alone, class 0"


def test_a_sequence_never_straddles_two_splits(mine: Path) -> None:
    """By fractions, of 40 drives: about as many as asked, and each stays where it was when others come."""
    for number in range(40):
        for name in ("x", "y"):
            for path in (mine / "rec" / f"d{number}" / f"{name}.jpg", mine / "truth" / f"d{number}_{name}.mask.png"):
                path.parent.mkdir(exist_ok=True)
                Image.new("RGB", (32, 24), ROAD).save(path)
    config = settings(split={"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}})
    scenes = list(sources.get(config, "folder").scan(mine))
    of = {scene.sequence: scene.split for scene in scenes}
    assert {(scene.sequence, scene.split) for scene in scenes} == set(of.items())
    counts = [list(of.values()).count(split) for split in sources.SPLITS]
    assert 18 <= counts[0] <= 34 and min(counts[1:]) >= 3
    for path in [*(mine / "rec" / "d0").iterdir(), *(mine / "truth").glob("d0_*")]:
        path.unlink()
    again = {scene.sequence: scene.split for scene in sources.get(config, "folder").scan(mine)}
    assert again == {sequence: split for sequence, split in of.items() if sequence != "d0"}


BAD = {
    "no root": ({"root": "elsewhere"}, r"elsewhere \(params\.yaml, sources\.folder\.root\) is no folder"),
    "no image": (
        {"images": "x/{name}.jpg"},
        r"no file under \S+ matches 'x/\{name\}\.jpg' \(.*sources\.folder\.images\)",
    ),
    "no list": ({"split": {"lists": {"train": "no.txt"}}}, r"no\.txt \(params\.yaml, .*split\.lists\) is not there"),
    "no such drive": ({"split": {"sequences": {"val": ["trip c"]}}}, r"there is no sequence 'trip c'"),
    "a colour twice": ({"void": [ROAD]}, r"sources\.folder\.classes: \(10, 20, 30\) is of road and of another class"),
    "no such class": (
        {"classes": {"raod": [ROAD], "car": [CAR]}},
        r"raw labels folder: 'raod' is no class of cityscapes19",
    ),
    "another space": ({"space": "mapillary66", "classes": {"road": [ROAD], "car": [CAR]}}, r"which speak mapillary66"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_mistake_is_one_line(kind: str) -> None:
    changes, says = BAD[kind]
    with pytest.raises(UserError, match=says) as caught:
        through(settings("camvid11" if kind == "another space" else None, **changes))
    assert "\n" not in str(caught.value)
    assert not Path("data/remapped/folder").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"split": {}},
        {"split": {"lists": {"train": "a.txt"}, "fractions": {"train": 1.0}}},
        {"split": {"fractions": {"train": 0.5}}},
        {"images": "rec/*.jpg"},
        {"classes": {"road": [300]}},
        {"encoding": "grey"},
    ],
)
def test_what_params_cannot_mean_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**changes)


def test_a_folder_that_is_not_described() -> None:
    config = segnet.settings(data__sources=["folder"])
    with pytest.raises(UserError, match=r"params\.yaml's sources\.folder says nothing: describe it there"):
        fetch.run(config, "folder")

"""Real files of five data sets, where ../shared/mirror is: counted here by NumPy on the archives' own bytes, with
tables written out from the reference and no code of the line."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg.scenes.index import read_index
from roadseg.stages import fetch, profile, remap
from tests import segnet
from tests.test_labels import CITYSCAPES, MAPILLARY

MIRROR = Path(os.environ.get("ROADSEG_MIRROR_REAL") or Path(__file__).parents[2] / "shared" / "mirror")
pytestmark = pytest.mark.skipif(not MIRROR.is_dir(), reason=f"{MIRROR} is not there")

NAMES = list(MAPILLARY)
TO_19: dict[str, Callable[[int], int]] = {
    "camvid": lambda raw: dict(enumerate([10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12])).get(raw, 255),
    "cityscapes": lambda raw: CITYSCAPES.index(raw) if raw in CITYSCAPES else 255,
    "kitti": lambda raw: CITYSCAPES.index(raw) if raw in CITYSCAPES else 255,
    "mapillary": lambda raw: next((NAMES.index(name) for name, ids in MAPILLARY.items() if raw in ids), 255),
    "bdd100k": lambda raw: raw,
}
TO_11 = [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
SCENES = {
    "camvid": (24, 8, 8),
    "cityscapes": (2, 0, 0),
    "kitti": (3, 0, 1),
    "mapillary": (3, 0, 0),
    "bdd100k": (6, 3, 0),
}
MASKS = {
    "camvid": "/CamVid/{split}annot/",
    "cityscapes": "gtFine/{split}/",
    "kitti": "training/semantic/",  # 000000_10 to 000002_10: all of them train
    "mapillary": "training/v1.2/labels/",
    "bdd100k": "/masks/{split}/",
}
LABELLED = [
    *(("camvid", split) for split in ("train", "val", "test")),
    *((source, "train") for source in ("cityscapes", "kitti", "mapillary", "bdd100k")),
    ("bdd100k", "val"),
]
OTHER = {"cityscapes": ("instanceIds", 1), "kitti": ("instance", 1), "bdd100k": ("colormaps", 1)}


def settings(*names: str, space: str, **sections: object):
    given = {f"sources__{name}": {} for name in SCENES} | {
        f"sources__{name}": value for name, value in sections.items()
    }
    return segnet.settings(data__sources=list(names), data__space=space, data__mirror=str(MIRROR), **given)


def raw_masks(source: str, split: str = "train") -> Iterator[tuple[str, np.ndarray]]:
    """(name, ids as Pillow reads them) of a split's masks in the mirror's archives."""
    part, end = MASKS[source].format(split=split), "_labelIds.png" if source == "cityscapes" else ".png"
    for path in sorted((MIRROR / source).glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if part in member and member.endswith(end):
                    yield Path(member).stem, np.asarray(Image.open(io.BytesIO(archive.read(member))))


def counted(source: str, space: str, split: str = "train") -> np.ndarray:
    """Pixels of each class in a split's masks."""
    total = np.zeros(256, np.int64)
    for _, ids in raw_masks(source, split):
        for raw, pixels in zip(*np.unique(ids, return_counts=True), strict=True):
            train = TO_19[source](int(raw))
            if space == "camvid11":
                train = int(raw) if source == "camvid" and raw < 11 else 255 if train == 255 else TO_11[train]
            total[train] += pixels
    return total


@pytest.fixture(autouse=True)
def _project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)


@pytest.mark.parametrize("source", SCENES)
def test_each_source_is_counted_as_by_hand(source: str) -> None:
    for space, classes in (("cityscapes19", 19), ("camvid11", 11)):
        config = settings(source, space=space)
        if space == "cityscapes19":
            fetch.run(config, source)
        remap.run(config, source)
        profile.run(config)
        scenes = read_index(Path(f"data/remapped/{source}/index.csv"))
        assert (
            tuple([scene.split for scene in scenes].count(split) for split in ("train", "val", "test"))
            == SCENES[source]
        )
        for of, split in LABELLED:
            if of == source:
                expected = counted(source, space, split)
                rows = pd.read_csv("data/profile/classes.csv").query(f"split == '{split}'")
                assert rows["pixels"].tolist() == expected[:classes].tolist()
                there = [scene for scene in scenes if scene.split == split]
                assert expected.sum() == sum(scene.height * scene.width for scene in there), "every pixel was counted"
                sizes = sorted(ids.shape for _, ids in raw_masks(source, split))
                assert sorted((scene.height, scene.width) for scene in there) == sizes


@pytest.mark.parametrize(("space", "classes"), [("cityscapes19", 19), ("camvid11", 11)])
def test_all_five_together(space: str, classes: int) -> None:
    config = settings(*SCENES, space=space)
    for source in SCENES:
        fetch.run(config, source)
        remap.run(config, source)
    profile.run(config)
    found = pd.read_csv("data/profile/classes.csv")
    for split in ("train", "val", "test"):
        expected = sum(counted(source, space, split) for source, of in LABELLED if of == split)
        assert found.query(f"split == '{split}'")["pixels"].tolist() == np.asarray(expected)[:classes].tolist()
    scenes = pd.read_csv("data/profile/scenes.csv")
    assert scenes.groupby("source").size().to_dict() == {name: sum(numbers) for name, numbers in SCENES.items()}


@pytest.mark.parametrize("source", OTHER)
def test_the_other_encoding_of_a_source_gives_the_same_masks(source: str) -> None:
    config = settings(source, space="cityscapes19")
    fetch.run(config, source)
    remap.run(config, source)
    first = [scene.label_sha256 for scene in read_index(Path(f"data/remapped/{source}/index.csv"))]
    other = settings(source, space="cityscapes19", **{source: {"masks": OTHER[source][0]}})
    fetch.run(other, source)
    remap.run(other, source)
    assert [scene.label_sha256 for scene in read_index(Path(f"data/remapped/{source}/index.csv"))] == first

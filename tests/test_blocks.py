"""Splits of tail blocks: against CamVid's own frame numbers, and against a definition that is checked pair by pair."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg.errors import UserError
from roadseg.scenes import sources
from roadseg.scenes.index import read_index
from roadseg.scenes.sources import RawScene, blocks
from roadseg.stages import audit, fetch, inventory, remap
from tests import segnet

# ../shared/reference/datasets.md, section 1.1: CamVid's frames of every sequence, by split.
CAMVID = {
    ("train", "0001TP"): range(6690, 8521, 30),
    ("train", "0006R0"): range(930, 3931, 30),
    ("train", "0016E5"): [*range(390, 7921, 30), *range(8190, 8641, 30)],
    ("val", "0016E5"): range(7959, 8160, 2),
    ("test", "0001TP"): range(8550, 10381, 30),
    ("test", "Seq05VD"): range(0, 5101, 30),
}


def raw(split: str, sequence: str, frame: int | None) -> RawScene:
    name = f"{sequence}_{frame}"
    return RawScene(split, name, Path(f"{name}.png"), Path(f"{name}_L.png"), sequence, frame)


def camvid() -> list[RawScene]:
    return [raw(split, sequence, frame) for (split, sequence), frames in CAMVID.items() for frame in frames]


def of(scenes: list[RawScene], split: str, sequence: str) -> list[int]:
    return [scene.frame or 0 for scene in scenes if (scene.split, scene.sequence) == (split, sequence)]


@pytest.mark.parametrize(("share", "gap"), [(0.15, 60), (0.1, 60), (0.3, 500)])
def test_camvids_blocks_keep_their_distance(share: float, gap: int) -> None:
    before, after = camvid(), blocks.divide(camvid(), share, gap)
    for sequence in ("0001TP", "0006R0", "0016E5"):
        frames = of(before, "train", sequence)
        tail = of(after, "val", sequence)
        reported = [s.frame or 0 for s in before if s.sequence == sequence and s.split != "train"]
        end = frames[-round(share * len(frames)) :]
        far = [frame for frame in end if all(abs(frame - other) >= gap for other in reported)]
        assert tail == far, "the end of the drive, but for what is near test or the official val"
        held = [*reported, *tail]
        kept = [frame for frame in set(frames) - set(end) if all(abs(frame - other) >= gap for other in held)]
        assert of(after, "train", sequence) == sorted(kept), "everything that is far enough, and nothing else"
    assert of(after, "official", "0016E5") == list(CAMVID["val", "0016E5"])
    assert [scene for scene in after if scene.split == "test"] == [s for s in before if s.split == "test"]


def test_a_held_out_shot_inside_training_makes_a_gap_of_its_own() -> None:
    scenes = [raw("train", "a", 10 * n) for n in range(20)] + [raw("val", "a", 55), raw("train", "b", 7)]
    after = blocks.divide(scenes, 0.1, 15)
    assert of(after, "train", "a") == [0, 10, 20, 30, 40, 70, *range(80, 170, 10)]
    assert of(after, "val", "a") == [180, 190]
    assert of(after, "train", "b") == [7], "a sequence of one scene has no tail"
    assert blocks.described(scenes, after) == (
        "blocks: 16 of 21 training scenes remain, 2 are val, 3 lie in the gaps; the official val (1) is "
        "scored beside it"
    )


@pytest.mark.parametrize(
    ("scenes", "says"),
    [
        ([raw("train", "a", None), raw("train", "a", 1)], r"a_None\.png has no frame number, which blocks need"),
        ([raw("train", "a", 1), raw("train", "b", 1)], r"none of 2 training sequences is long enough"),
        ([raw("test", "a", 1)], r"none of 0 training sequences"),
    ],
)
def test_what_has_no_blocks_is_said(scenes: list[RawScene], says: str) -> None:
    with pytest.raises(UserError, match=says):
        blocks.divide(scenes, 0.2, 1)


def test_camvid_blocks_through_the_stages(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenes = {
        "train": {f"0006R0_f{n:05}": segnet.pair(n) for n in range(0, 300, 30)},
        "val": {"0016E5_07961": segnet.pair(4)},
        "test": {"Seq05VD_f00000": segnet.pair(5)},
    }
    segnet.write_archive(Path("mine.zip"), segnet.files(scenes))
    expected = {"train": 10, "val": 1, "test": 1}
    config = segnet.settings(
        sources__camvid={"archive": "mine.zip", "blocks": {"share": 0.2, "gap": 60}, "expect": expected}
    )
    fetch.run(config, "camvid")
    capsys.readouterr()
    remap.run(config, "camvid")
    assert "camvid-blocks: 7 of 10 training scenes remain, 2 are val, 1 lie in the gaps" in capsys.readouterr().out
    found = [(scene.split, scene.image.stem) for scene in read_index(Path("data/remapped/camvid/index.csv"))]
    assert [stem for split, stem in found if split == "val"] == ["0006R0_f00240", "0006R0_f00270"]
    assert ("official", "0016E5_07961") in found
    assert "0006R0_f00210" not in [stem for _, stem in found]
    assert inventory.row(config, "camvid")[:3] == ("7", "2 (1 official beside)", "1")
    assert audit.straddles(config, "camvid", "0006R0") == (
        "blocks: val is its tail, and 60 frames lie between splits"
    ), "validation waives what is so on purpose"


def test_a_folders_frames_are_the_last_digits_of_a_name(workspace: Path) -> None:
    for number in range(10):
        for kind, pixels in (("rgb", np.zeros((24, 32, 3), np.uint8)), ("mask", np.zeros((24, 32), np.uint8))):
            path = Path("mine", kind, f"cam2_{number:04}_x.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    described = {
        "root": "mine",
        "images": "rgb/{name}.png",
        "masks": "mask/{name}.png",
        "encoding": "index",
        "space": "cityscapes19",
        "classes": {"road": [0]},
        "split": {"fractions": {"train": 1.0}},
        "expect": {"train": 10},
        "blocks": {"share": 0.5, "gap": 3},
    }
    config = segnet.settings(data__sources=["folder"], sources__folder=described)
    source = sources.get(config, "folder")
    assert {scene.frame for scene in source.scan(Path("mine"))} == set(range(10))
    after = sources.scenes(source, Path("mine"))  # without {sequence} in the pattern, all of it is one video
    assert (of(after, "train", "all"), of(after, "val", "all")) == ([0, 1, 2], [5, 6, 7, 8, 9])

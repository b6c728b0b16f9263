"""`roadseg show` and `roadseg data`."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from roadseg import figures, labels
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.stages import fetch, inventory, profile, remap, show
from tests import segnet


@pytest.fixture
def project(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv("ROADSEG_MIRROR", raising=False)
    segnet.write_archive(Path("mine.zip"), segnet.files(segnet.default_scenes()))
    config = segnet.settings(sources__camvid={"archive": "mine.zip"})
    fetch.run(config, "camvid")
    remap.run(config, "camvid")
    return config


def test_a_sheet_has_a_row_a_scene_in_the_spaces_colours(project: Config, capsys: pytest.CaptureFixture[str]) -> None:
    profile.run(project)
    show.run(project, "camvid", Path("out"), scenes=3)
    assert "camvid: 13 pictures in out; start with out/sheet.png" in capsys.readouterr().out
    page = np.asarray(Image.open("out/sheet.png"))
    gap = figures.GAP
    assert page.shape == (3 * (show.HEIGHT + gap) - gap, 3 * (show.WIDTH + gap) - gap, 3)
    # The drawn scenes are 24x12 with twelve rows of classes: sky is at the top, void at the bottom.
    middle = page[:, show.WIDTH + gap : 2 * show.WIDTH + gap]
    space = labels.load("camvid11")
    top = (show.HEIGHT - show.WIDTH // 2) // 2
    assert tuple(middle[top + 5, 100]) == space.colours[0]
    assert tuple(middle[top + 3 * 20 + 5, 100]) == space.colours[3]
    assert tuple(middle[show.HEIGHT - top - 5, 100]) == (0, 0, 0)


def test_a_class_is_shown_where_there_is_least_and_most_of_it() -> None:
    table = pd.DataFrame({"image": list("abcdefg"), "share_pole": [0.5, 0.0, 0.1, 0.2, 0.3, 0.0, 0.4]})
    assert show.extremes(table, "pole", 2)["image"].tolist() == ["c", "d", "g", "a"]
    assert show.extremes(table, "pole", 9)["image"].tolist() == ["c", "d", "e", "g", "a"]
    assert show.extremes(table[table["share_pole"] == 0], "pole", 2).empty


@pytest.mark.parametrize("size", [(100, 50), (50, 100), (540, 960)])
def test_pictures_keep_their_proportions(size: tuple[int, int]) -> None:
    frame = show.fitted(np.zeros(size, np.uint8), cv2.INTER_NEAREST, 255)
    rows, columns = np.nonzero(frame == 0)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert frame.shape == (show.HEIGHT, show.WIDTH)
    assert height / width == pytest.approx(size[0] / size[1], rel=0.02)
    assert height == show.HEIGHT or width == show.WIDTH


def test_what_cannot_be_shown_says_why(project: Config) -> None:
    with pytest.raises(UserError, match=r"scenes\.csv is missing: run the profile stage first"):
        show.run(project, "camvid", Path("out"))
    profile.run(project)
    with pytest.raises(UserError, match=r"has no labelled scene of kitti: add it to data\.sources and profile"):
        show.run(project, "kitti", Path("out"))
    with pytest.raises(UserError, match=r"has no class 'sidewalk' of cityscapes19: run the profile stage"):
        show.run(segnet.settings(data__space="cityscapes19"), "camvid", Path("out"))
    assert not Path("out").exists()


def test_data_says_what_is_there(project: Config, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventory.row(project, "camvid")[:4] == ("3", "1", "1", "24x12")
    assert inventory.row(project, "camvid")[4].startswith("CC BY-NC 4.0")
    assert inventory.row(project, "kitti")[3] == "not fetched: roadseg fetch kitti"
    for name in ("training/image_2/000001_10.png", "training/semantic/000001_10.png", "testing/image_2/000002_10.png"):
        path = Path("data/raw/kitti", name)
        path.parent.mkdir(parents=True)
        Image.new("L" if "semantic" in name else "RGB", (8, 6 if "testing" in name else 4)).save(path)
    assert inventory.row(project, "kitti")[:4] == ("1", "0", "1 (1 unlabelled)", "8x4 and 1 others")
    Path("data/raw/kitti/training/semantic/000001_10.png").unlink()
    assert "training/image_2/000001_10.png has no mask" in inventory.row(project, "kitti")[3]
    inventory.run(project)
    printed = capsys.readouterr().out
    assert "camvid*" in printed and "mapillary" in printed

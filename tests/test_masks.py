"""Mask encodings, each against ids that a loop writes out; what is no such mask is one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg import labels
from roadseg.errors import UserError
from roadseg.scenes import masks
from roadseg.scenes.masks import Encoding

CITY, CAMVID = labels.raw("cityscapes"), labels.raw("camvid32")
IDS = np.random.default_rng(0).integers(0, 32, (6, 9), dtype=np.uint8)


def saved(folder: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path = folder / "mask.png"
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_index(tmp_path: Path) -> None:
    assert masks.read(saved(tmp_path, IDS), "index", CITY).tolist() == IDS.tolist()


def test_colour_is_looked_up(tmp_path: Path) -> None:
    painted = np.array([[CAMVID.colours[i] for i in row] for row in IDS.tolist()], np.uint8)
    assert masks.read(saved(tmp_path, painted), "colour", CAMVID).tolist() == IDS.tolist()


def test_a_strange_colour_is_named_and_may_be_tolerated(tmp_path: Path) -> None:
    """Seq05VD_f02610_L.png has some 175 anti-aliased pixels."""
    painted = np.full((20, 20, 3), CAMVID.colours[17], np.uint8)
    painted[0, :3], painted[1, 0] = (26, 26, 26), (128, 128, 51)
    path = saved(tmp_path, painted)
    with pytest.raises(UserError, match=r"mask\.png: colour \(26, 26, 26\) \(3 px\), \(128, 128, 51\) \(1 px\) is not"):
        masks.read(path, "colour", CAMVID, tolerate=3)
    ids = masks.read(path, "colour", CAMVID, tolerate=4)
    train_ids = labels.load("camvid11").table(CAMVID).remap(ids, path, tolerate=4)
    expected = np.full((20, 20), 3)
    expected[0, :3] = expected[1, 0] = 255
    assert train_ids.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("encoding", "mode", "says"),
    [
        ("palette", "RGB", "mode RGB, but an 8-bit mask of palette indices"),
        ("colour", "RGBA", "mode RGBA, but an 8-bit RGB mask"),
        ("instance256", "L", "mode L, but a 16-bit mask"),
    ],
)
def test_another_encoding_is_refused(tmp_path: Path, encoding: Encoding, mode: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"mask\.png has {says}"):
        masks.read(saved(tmp_path, IDS, mode), encoding, CITY)


def test_histogram_is_a_count_beyond_what_float32_holds() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    ids[5:20] = 7
    expected = np.bincount(ids.ravel(), minlength=256)
    assert masks.histogram(ids).tolist() == masks.histogram(ids.T).tolist() == expected.tolist()
    assert masks.histogram(np.full((4100, 4100), 3, np.uint8))[3] == 4100 * 4100 > 2**24

"""Mask encodings, each against ids that a loop writes out; what is no such mask is one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg import labels
from roadseg.errors import UserError
from roadseg.scenes import masks
from roadseg.scenes.masks import Encoding

CITY, CAMVID, VISTAS = labels.raw("cityscapes"), labels.raw("camvid32"), labels.raw("mapillary12")
IDS = np.random.default_rng(0).integers(0, 32, (6, 9), dtype=np.uint8)


def saved(folder: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    path = folder / "mask.png"
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def test_index(tmp_path: Path) -> None:
    assert masks.read(saved(tmp_path, IDS), "index", CITY).tolist() == IDS.tolist()


def test_palette_gives_indices_whatever_the_colours(tmp_path: Path) -> None:
    """Mapillary's palettes are older than its classes, and several ids share a colour."""
    image = Image.fromarray(IDS).convert("P")
    image.putdata(IDS.ravel().tolist())
    image.putpalette([7, 7, 7] * 256)
    image.save(tmp_path / "mask.png")
    found = masks.read(tmp_path / "mask.png", "palette", VISTAS)
    assert found.dtype == np.uint8
    assert found.tolist() == IDS.tolist()


def test_colour_is_looked_up(tmp_path: Path) -> None:
    painted = np.array([[CAMVID.colours[i] for i in row] for row in IDS.tolist()], np.uint8)
    assert masks.read(saved(tmp_path, painted), "colour", CAMVID).tolist() == IDS.tolist()


@pytest.mark.parametrize(("encoding", "factor"), [("instance1000", 1000), ("instance256", 256)])
def test_instances_give_their_class(tmp_path: Path, encoding: Encoding, factor: int) -> None:
    """Cityscapes: id * 1000 + n, or the plain id; KITTI and Mapillary: id * 256 + n. Packing is not shared."""
    number = np.arange(IDS.size).reshape(IDS.shape) % 7
    values = IDS.astype(np.uint16) * factor + number.astype(np.uint16)
    if encoding == "instance1000":
        values = np.where(number == 0, IDS, values).astype(np.uint16)
        values[IDS == 0] = 0  # what is unlabelled has no instances
    assert masks.read(saved(tmp_path, values), encoding, CITY).tolist() == IDS.tolist()


def test_the_other_packing_is_noticed(tmp_path: Path) -> None:
    """id 26 as KITTI packs it, 26 * 256 + 1 = 6657, is class 6 by Cityscapes' rule: only ids beyond 255 can be seen."""
    plain = np.full((2, 2), 60000, np.uint16)
    assert masks.read(saved(tmp_path, plain), "instance1000", CITY).tolist() == [[60, 60], [60, 60]]
    assert masks.read(saved(tmp_path, plain), "instance256", CITY).tolist() == [[234, 234], [234, 234]]
    with pytest.raises(UserError, match=r"label id 60 .* is not in the raw labels cityscapes"):
        space = labels.load("cityscapes19").table(CITY)
        space.remap(masks.read(saved(tmp_path, plain), "instance1000", CITY), "mask.png")
    with pytest.raises(UserError, match=r"instance value 999 is of no class: this is no instance1000 mask"):
        masks.read(saved(tmp_path, np.full((2, 2), 999, np.uint16)), "instance1000", CITY)


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
        ("index", "P", "mode P, but an 8-bit mask of ids"),  # predictions in the wild are mode P
        ("index", "RGB", "mode RGB, but an 8-bit mask of ids"),
        ("index", "LA", "mode LA, but an 8-bit mask of ids"),
        ("palette", "L", "mode L, but an 8-bit mask of palette indices"),
        ("palette", "RGB", "mode RGB, but an 8-bit mask of palette indices"),
        ("colour", "P", "mode P, but an 8-bit RGB mask"),
        ("colour", "RGBA", "mode RGBA, but an 8-bit RGB mask"),
        ("instance256", "L", "mode L, but a 16-bit mask"),
    ],
)
def test_another_encoding_is_refused(tmp_path: Path, encoding: Encoding, mode: str, says: str) -> None:
    with pytest.raises(UserError, match=rf"mask\.png has {says}"):
        masks.read(saved(tmp_path, IDS, mode), encoding, CITY)

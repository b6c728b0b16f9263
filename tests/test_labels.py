"""Label tables against the published ones, written out again here."""

import numpy as np
import pytest

from roadseg import labels
from roadseg.errors import UserError

# cityscapesScripts' labels.py: the labelId of each trainId, in trainId order.
CITYSCAPES = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
SEGNET = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"


def as_dict(space: str, source: str) -> dict[int, int]:
    lut = labels.load(space).table(source).lut
    return {raw: int(train) for raw, train in enumerate(lut) if train >= 0}


def test_spaces_have_their_published_order_and_colours() -> None:
    camvid, cityscapes = labels.load("camvid11"), labels.load("cityscapes19")
    assert [name.replace(" ", "") for name in camvid.classes] == SEGNET.lower().split()
    assert camvid.colours[4] == (60, 40, 222) and camvid.colours[10] == (0, 128, 192)
    assert cityscapes.classes[:2] == ("road", "sidewalk") and cityscapes.classes[18] == "bicycle"
    # BDD's config swaps these two.
    assert dict(zip(cityscapes.classes, cityscapes.colours, strict=True))["wall"] == (102, 102, 156)
    assert dict(zip(cityscapes.classes, cityscapes.colours, strict=True))["fence"] == (190, 153, 153)
    for space in (camvid, cityscapes):
        assert len(space.classes) == len(space.colours) == len(set(space.colours)) == len(set(space.classes))


def test_own_spaces_are_one_to_one() -> None:
    assert as_dict("camvid11", "camvid") == {**{i: i for i in range(11)}, 11: 255}
    expected = dict.fromkeys(range(34), 255) | {raw: train for train, raw in enumerate(CITYSCAPES)}
    assert as_dict("cityscapes19", "streets") == expected
    for space, source in (("camvid11", "camvid"), ("cityscapes19", "streets")):
        assert labels.load(space).table(source).lossy == ()
        assert labels.load(space).table(source).absent == ()


def test_streets_in_camvid11() -> None:
    # Cityscapes trainId -> CamVid-11, from the reference.
    expected = [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
    lut = as_dict("camvid11", "streets")
    assert [lut[raw] for raw in CITYSCAPES] == expected
    assert {raw for raw, train in lut.items() if train == 255} == set(range(34)) - set(CITYSCAPES)
    lossy = labels.load("camvid11").table("streets").lossy
    assert "building is building + wall" in lossy
    assert "car is car + truck + bus + train" in lossy
    assert len(lossy) == 5


def test_camvid_in_cityscapes19_says_what_is_lost() -> None:
    assert as_dict("cityscapes19", "camvid") == dict(enumerate([10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255]))
    table = labels.load("cityscapes19").table("camvid")
    assert "Car also holds truck, bus and train" in table.lossy
    absent = ("wall", "traffic light", "terrain", "truck", "bus", "train", "motorcycle", "bicycle")
    assert table.absent == absent


def test_remap_equals_a_naive_loop() -> None:
    table = labels.load("cityscapes19").table("streets")
    ids = np.random.default_rng(0).integers(0, 34, (5, 7), dtype=np.uint8)
    expected = [[CITYSCAPES.index(raw) if raw in CITYSCAPES else 255 for raw in row] for row in ids.tolist()]
    train_ids = table.remap(ids, "mask.png")
    assert train_ids.dtype == np.uint8
    assert train_ids.tolist() == expected


@pytest.mark.parametrize("unknown", [34, 255])
def test_an_id_outside_of_the_table_is_named(unknown: int) -> None:
    """255 is what Cityscapes' -1 (license plate) becomes in 8 bits: it must not pass for ignore."""
    ids = np.full((4, 4), 7, np.uint8)
    ids[1, 2:] = unknown
    with pytest.raises(UserError, match=rf"^m\.png: label id {unknown} \(2 px\) is not in streets's table for city"):
        labels.load("cityscapes19").table("streets").remap(ids, "m.png")


def test_wrong_names_list_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"'camvid12' is unknown .*; valid: camvid11, cityscapes19$"):
        labels.load("camvid12")
    with pytest.raises(UserError, match=r"camvid11 has no table for source 'kitti'; it has: camvid, streets$"):
        labels.load("camvid11").table("kitti")

"""Label tables against the published ones, written out again here."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from roadseg import labels
from roadseg.errors import UserError
from roadseg.labels import Table

# cityscapesScripts' labels.py: the labelId of each trainId, in trainId order.
CITYSCAPES = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def table(space: str, raw: str) -> Table:
    return labels.load(space).table(labels.raw(raw))


def as_dict(space: str, raw: str) -> dict[int, int]:
    lut = table(space, raw).lut
    return {raw: int(train) for raw, train in enumerate(lut) if train >= 0}


def test_spaces_have_their_published_order_and_colours() -> None:
    camvid, cityscapes = labels.load("camvid11"), labels.load("cityscapes19")
    assert cityscapes.classes[:2] == ("road", "sidewalk") and cityscapes.classes[18] == "bicycle"
    for space in (camvid, cityscapes):
        assert len(space.classes) == len(space.colours) == len(set(space.colours)) == len(set(space.classes))


def test_own_spaces_are_one_to_one() -> None:
    assert as_dict("camvid11", "segnet11") == {**{i: i for i in range(11)}, 11: 255}
    expected = dict.fromkeys(range(34), 255) | {raw: train for train, raw in enumerate(CITYSCAPES)}
    assert as_dict("cityscapes19", "cityscapes") == expected
    for space, source in (("camvid11", "segnet11"), ("cityscapes19", "cityscapes")):
        assert table(space, source).lossy == ()
        assert table(space, source).absent == ()


def test_streets_in_camvid11() -> None:
    # Cityscapes trainId -> CamVid-11, from the reference.
    expected = [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
    lut = as_dict("camvid11", "cityscapes")
    assert [lut[raw] for raw in CITYSCAPES] == expected
    assert {raw for raw, train in lut.items() if train == 255} == set(range(34)) - set(CITYSCAPES)
    lossy = table("camvid11", "cityscapes").lossy
    assert "building is building + wall" in lossy
    assert "car is car + truck + bus + train" in lossy
    assert len(lossy) == 5


def test_camvid_in_cityscapes19_says_what_is_lost() -> None:
    assert as_dict("cityscapes19", "segnet11") == dict(enumerate([10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255]))
    camvid = table("cityscapes19", "segnet11")
    assert "Car also holds truck, bus and train" in camvid.lossy
    absent = ("wall", "traffic light", "terrain", "truck", "bus", "train", "motorcycle", "bicycle")
    assert camvid.absent == absent


def test_remap_equals_a_naive_loop() -> None:
    ids = np.random.default_rng(0).integers(0, 34, (5, 7), dtype=np.uint8)
    expected = [[CITYSCAPES.index(raw) if raw in CITYSCAPES else 255 for raw in row] for row in ids.tolist()]
    train_ids = table("cityscapes19", "cityscapes").remap(ids, "mask.png")
    assert train_ids.dtype == np.uint8
    assert train_ids.tolist() == expected


def test_a_known_defect_is_tolerated_by_so_many_pixels() -> None:
    ids = np.full((4, 4), 7, np.uint8)
    ids[0, :3] = 200
    train_ids = table("cityscapes19", "cityscapes").remap(ids, "m.png", tolerate=3)
    assert train_ids.tolist()[0] == [255, 255, 255, 0]
    assert (train_ids[1:] == 0).all()


# ../shared/reference/datasets.md, section 4.1: the proposed Mapillary v1.2 ids of each Cityscapes class.
MAPILLARY = {
    "road": [7, 8, 13, 14, 23, 24, 36, 41, 43], "sidewalk": [2, 9, 11, 15], "building": [17], "wall": [6], "fence": [3],
    "pole": [45, 47], "traffic light": [48], "traffic sign": [50], "vegetation": [30], "terrain": [29], "sky": [27],
    "person": [19], "rider": [20, 21, 22], "car": [55], "truck": [61], "bus": [54], "train": [58], "motorcycle": [57],
    "bicycle": [52],
}  # fmt: skip


def test_mapillary_in_cityscapes19() -> None:
    """Off-by-one tables circulate (47 as traffic light, 48 as traffic sign)."""
    classes = labels.load("cityscapes19").classes
    expected = dict.fromkeys(range(66), 255)
    expected |= {raw: classes.index(name) for name, ids in MAPILLARY.items() for raw in ids}
    assert as_dict("cityscapes19", "mapillary12") == expected
    twenty = as_dict("cityscapes19", "mapillary20")
    assert len(twenty) == 124
    assert {raw: twenty[raw] for raw in (4, 21, 27, 30, 45, 85, 88, 90, 95, 100, 108, 111)} == {
        4: 1, 21: 0, 27: 2, 30: 11, 45: 0, 85: 5, 88: 5, 90: 6, 95: 6, 100: 7, 108: 13, 111: 16,
    }  # fmt: skip
    assert {twenty[raw] for raw in (26, 66, 84, 97, 109, 118, 123)} == {255}


def test_mapillary_in_its_own_space() -> None:
    assert as_dict("mapillary66", "mapillary12") == {**{i: i for i in range(65)}, 65: 255}
    space = labels.load("mapillary66")
    assert (space.classes[13], space.classes[47], space.classes[64]) == ("road", "utility pole", "ego vehicle")
    twenty, names = as_dict("mapillary66", "mapillary20"), labels.raw("mapillary20").names
    of = {name: space.classes[twenty[raw]] for raw, name in names.items() if twenty[raw] != 255}
    assert (of["human--person--individual"], of["object--vehicle--car"]) == ("person", "car")
    assert of["marking--discrete--crosswalk-zebra"] == "lane marking - crosswalk"
    same = {name for name in names.values() if name in labels.raw("mapillary12").names.values()}
    ours = {raw: i for i, raw in enumerate(labels.raw("mapillary12").names.values())}
    assert all(space.classes.index(of[name]) == ours[name] for name in same if name in of)


# Section 1.4: CamVid's 32 classes in Cityscapes' trainIds and in the eleven, in alphabetical order.
IN_19 = [255, 255, 12, 255, 2, 13, 255, 11, 5, 4, 0, 0, 255, 17, 255, 255, 11, 0, 255, 1, 7, 10, 13, 255, 6, 16, 8, 255]
IN_19 += [255, 8, 255, 3]
IN_11 = [9, 1, 10, 1, 1, 8, 9, 9, 2, 7, 3, 3, 6, 10, 8, 4, 9, 3, 4, 4, 6, 0, 8, 2, 6, 8, 5, 8, 1, 5, 255, 1]


def test_camvids_32_classes() -> None:
    assert as_dict("cityscapes19", "camvid32") == dict(enumerate(IN_19))
    assert as_dict("camvid11", "camvid32") == dict(enumerate(IN_11))
    colours = labels.raw("camvid32").colours
    assert len(set(colours.values())) == 32


def test_a_space_reads_what_its_via_can_read() -> None:
    eleven, nineteen = as_dict("camvid11", "mapillary12"), as_dict("cityscapes19", "mapillary12")
    to_eleven = [3, 4, 1, 1, 7, 2, 6, 6, 5, 5, 0, 9, 10, 8, 8, 8, 8, 10, 10]
    assert eleven == {raw: 255 if train == 255 else to_eleven[train] for raw, train in nineteen.items()}
    assert as_dict("camvid11", "trainids19")[12] == 10


MINE = """
name: drivable
classes:
  - { name: drivable, colour: [0, 255, 0] }
  - { name: other, colour: [255, 0, 0] }
from:
  segnet11: { drivable: [Road, Pavement], other: [Car] }
via:
  cityscapes19: { drivable: [road, sidewalk], other: [car, bus] }
"""


@pytest.fixture
def spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder of label spaces, to add tables to."""
    folder = Path(shutil.copytree(labels.SPACES, tmp_path / "spaces"))
    monkeypatch.setattr(labels, "SPACES", folder)
    labels.load.cache_clear()
    yield folder
    labels.load.cache_clear()


def test_a_space_of_ones_own(spaces: Path) -> None:
    (spaces / "drivable.yaml").write_text(MINE)
    assert as_dict("drivable", "segnet11") == dict.fromkeys(range(12), 255) | {3: 0, 4: 0, 8: 1}
    assert as_dict("drivable", "cityscapes") == dict.fromkeys(range(34), 255) | {7: 0, 8: 0, 26: 1, 28: 1}


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("Pavement]", "Pavment]", "from segnet11: raw labels segnet11 have no 'Pavment'"),
        ("other: [Car]", "else: [Car]", "from segnet11: 'else' is none of its classes"),
        ("other: [Car]", "other: [Road]", "from segnet11: 'Road' is taken by two classes"),
        ("name: other", "name: drivable", "it has 2 classes, 1 of them different"),
        ("[255, 0, 0]", "red", "is no label space"),
        ("classes:", "klasses:", "is no label space"),
        ("{ name: other", "[", "is not YAML"),
    ],
)
def test_a_wrong_space_is_one_line_that_names_the_file(spaces: Path, old: str, new: str, says: str) -> None:
    (spaces / "mine.yaml").write_text(MINE.replace(old, new))
    with pytest.raises(UserError, match=r"mine\.yaml") as caught:
        labels.load("mine")
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_names_list_the_valid_ones() -> None:
    valid = r"camvid11, cityscapes19, mapillary66, or add \S+/labels/spaces/camvid12\.yaml"
    with pytest.raises(UserError, match=rf"'camvid12' is unknown .*; valid: {valid}$"):
        labels.load("camvid12")
    with pytest.raises(
        UserError, match=r"mapillary66 cannot be made from raw labels cityscapes; it can from: mapillary"
    ):
        table("mapillary66", "cityscapes")

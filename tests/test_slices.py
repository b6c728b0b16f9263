"""Slices against sums by hand."""

import numpy as np
import pandas as pd
import pytest

from roadseg import figures
from roadseg.deploy import slices
from roadseg.metrics import scores

NAMES = ("road", "car", "sky")


def facts(*rows: tuple[str, str, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["source", "sequence", "brightness"])
    return frame.assign(image=[f"{number}.png" for number in range(len(rows))])


FACTS = facts(("a", "1", 10), ("a", "1", 90), ("a", "2", 50), ("b", "1", 200), ("b", "1", 60), ("b", "2", 70))
MATRICES = np.random.default_rng(0).integers(0, 50, (6, 3, 3))
EDGES = (50.0, 90.0)
BANDS = np.stack([MATRICES.sum(axis=0) // 3] * 3)


def test_each_slice_is_the_score_of_its_own_scenes() -> None:
    table = slices.table("val", MATRICES, BANDS, FACTS, EDGES)
    expected = {
        "val": range(6),
        "a": [0, 1, 2],
        "b": [3, 4, 5],
        "a 1": [0, 1],
        "a 2": [2],
        "b 1": [3, 4],
        "b 2": [5],
        "dark (up to 50)": [0, 2],
        "medium (50 to 90)": [1, 4, 5],
        "bright (over 90)": [3],
    }
    found = table[table["by"] != "image rows"].set_index("slice")
    assert set(found.index) == set(expected)
    for name, places in expected.items():
        matrix = sum(MATRICES[place] for place in places)
        assert found.loc[name, "miou"] == scores(np.asarray(matrix)).miou, name
        assert found.loc[name, "pixels"] == np.asarray(matrix).sum()
        assert found.loc[name, "scenes"] == len(list(places))
    rows = table[table["by"] == "image rows"]
    assert rows["slice"].tolist() == ["top third", "middle third", "bottom third"]
    assert rows["miou"].tolist() == [scores(band).miou for band in BANDS]


def test_thirds_are_of_equal_number() -> None:
    assert slices.thirds(pd.Series([0.0, 30, 60, 90])) == pytest.approx((30, 60))


def test_a_slice_without_labelled_pixels_has_no_row() -> None:
    matrices = MATRICES.copy()
    matrices[2] = 0
    bands = BANDS.copy()
    bands[0] = 0
    names = set(slices.table("val", matrices, bands, FACTS, EDGES)["slice"])
    assert "a 2" not in names and "top third" not in names
    assert slices.table("official", MATRICES[:0], BANDS * 0, FACTS[:0], EDGES).empty


def test_what_is_confused_most_comes_first() -> None:
    matrix = np.array([[100, 7, 0], [30, 50, 20], [0, 3, 40]])
    found = slices.confused(matrix, NAMES)
    assert found.values.tolist() == [
        ["car", "road", 30, 0.3, 0.5],
        ["car", "sky", 20, 0.2, 0.333333],
        ["road", "car", 7, 0.065421, 0.116667],
        ["sky", "car", 3, 0.069767, 0.05],
    ]
    assert len(slices.confused(matrix, NAMES, most=2)) == 2
    assert slices.confused(np.diag([5, 5, 5]), NAMES).empty


def test_worst_scenes_first_and_unlabelled_ones_not_at_all() -> None:
    matrices = np.stack([np.diag([9, 9, 9]), np.array([[1, 8, 0], [0, 9, 0], [0, 0, 9]]), np.zeros((3, 3), int)])
    found = slices.worst(matrices, FACTS[:3])
    assert found["image"].tolist() == ["1.png", "0.png"]
    assert found["miou"].tolist() == pytest.approx([(1 / 9 + 9 / 17 + 1) / 3, 1.0])


def test_a_source_abroad_is_scored_over_all_classes_and_over_those_that_were_taught() -> None:
    """Trained where there is no sky: half right on road and car, and sky cannot be right."""
    matrix = np.array([[[4, 4, 0], [0, 8, 0], [8, 0, 0]]])
    abroad = facts(("kitti", "1", 5))
    taught = np.array([True, True, False])
    found = slices.across("a+b", {"val": (MATRICES, FACTS), "elsewhere": (matrix, abroad)}, taught)
    assert found[["source", "split", "scenes"]].values.tolist() == [
        ["a", "val", 3],
        ["b", "val", 3],
        ["kitti", "elsewhere", 1],
    ]
    kitti = found.iloc[-1]
    assert (kitti["classes_present"], kitti["classes_taught"], set(found["trained_on"])) == (3, 2, {"a+b"})
    road, car = 4 / 16, 8 / 12
    assert kitti["miou"] == pytest.approx((road + car + 0) / 3)
    assert kitti["miou_taught"] == pytest.approx((road + car) / 2)


def test_the_picture_shows_every_slice() -> None:
    table = pd.concat([slices.table(split, MATRICES, BANDS, FACTS, EDGES) for split in ("val", "test")])
    figure = figures.slices(table)
    shown = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    assert shown == [name for name in dict.fromkeys(table["slice"]) if name not in ("val", "test")]
    points = [collection.get_offsets() for axes in figure.axes for collection in axes.collections]
    assert sum(map(len, points)) == (table["by"] != "all").sum()

"""streets: same seed, same bytes; Cityscapes' layout and ids; every class in every split; the geometry of the brush."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg.config import Drives, Streets
from roadseg.scenes import streets
from roadseg.scenes.streets import model as m
from roadseg.scenes.streets.brush import GRAIN, Brush, Camera
from roadseg.scenes.streets.mood import MOODS

CLASSES = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33}


def settings(seed: int = 1, drives: int = 1, scenes: int = 2, height: int = 72, width: int = 144) -> Streets:
    return Streets(seed=seed, height=height, width=width, scenes_per_drive=scenes,
                   drives=Drives(train=drives, val=1, test=1))  # fmt: skip


def digest(scenes: Streets) -> list[str]:
    return [hashlib.sha256(image.tobytes() + ids.tobytes()).hexdigest() for *_, image, ids in streets.draw(scenes)]


def test_same_seed_same_bytes_and_no_scene_twice() -> None:
    first = digest(settings())
    assert first == digest(settings())
    assert len(set(first)) == len(first) == 6
    assert not set(first) & set(digest(settings(seed=2)))


def test_more_drives_leave_the_earlier_ones_as_they_are() -> None:
    few = {(split, drive, frame): image for split, drive, frame, image, _ in streets.draw(settings())}
    many = {(split, drive, frame): image for split, drive, frame, image, _ in streets.draw(settings(drives=2))}
    assert len(many) == len(few) + 2
    for key, image in few.items():
        np.testing.assert_array_equal(image, many[key])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (90, 161), (144, 288)])
def test_pictures_have_the_asked_size_and_known_ids(height: int, width: int) -> None:
    for _, _, _, image, ids in streets.draw(settings(scenes=1, height=height, width=width)):
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert ids.shape == (height, width) and ids.dtype == np.uint8
        assert set(np.unique(ids)) <= CLASSES | {1, 4, 6, 10}


def test_a_drive_belongs_to_one_split_and_shares_its_light() -> None:
    split_of: dict[str, set[str]] = {}
    cast: dict[str, list[float]] = {}
    for split, drive, _, image, ids in streets.draw(settings(drives=3)):
        split_of.setdefault(drive, set()).add(split)
        red, _, blue = image[ids == m.ROAD].mean(axis=0)
        cast.setdefault(drive, []).append(red - blue)
    assert all(len(splits) == 1 for splits in split_of.values())
    within = max(abs(a - b) for a, b in cast.values())
    assert within < abs(cast["train000"][0] - cast["train002"][0])  # noon and a golden evening


def test_every_class_is_in_every_split_and_the_rare_ones_are_rare() -> None:
    counts = {split: np.zeros(256, np.int64) for split in streets.SPLITS}
    for split, *_, ids in streets.draw(settings(drives=3, scenes=6, height=96, width=192)):
        counts[split] += np.bincount(ids.reshape(-1), minlength=256)
    for split, count in counts.items():
        assert set(np.flatnonzero(count)) >= CLASSES, split
    shares = counts["train"] / counts["train"].sum()
    assert shares[m.ROAD] > 0.2 and shares[m.RIDER] < 0.03 and shares[m.LIGHT] < 0.02
    assert shares[[m.EGO, m.STATIC, m.GROUND, m.TRACK]].sum() < 0.15


def test_write_is_cityscapes_layout(tmp_path: Path) -> None:
    streets.write(settings(scenes=1), tmp_path)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert names == sorted(
        f"{kind}/{split}/{split}000/{split}000_000000_000000_{suffix}.png"
        for kind, suffix in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds"))
        for split in streets.SPLITS
    )
    split, drive, frame, image, ids = next(streets.draw(settings(scenes=1)))
    stem = f"{split}/{drive}/{drive}_000000_{frame:06}"
    with Image.open(tmp_path / f"leftImg8bit/{stem}_leftImg8bit.png") as saved:
        assert saved.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(saved), image)
    with Image.open(tmp_path / f"gtFine/{stem}_gtFine_labelIds.png") as saved:
        assert saved.mode == "L"
        np.testing.assert_array_equal(np.asarray(saved), ids)


def upright(label: int, half: float, tall: float) -> m.Model:
    return m.Model([m.Part(m.front(m.rect(-half, half, 0, tall)), (200, 10, 10), label)], half, 0.1, tall)


def brush() -> Brush:
    camera = Camera(focal=100 * GRAIN, centre=50 * GRAIN, horizon=40 * GRAIN, height=2.0, x=0.0, bend=0.0)
    return Brush(100, 100, camera, MOODS["noon"], (0.5, 0.6, 0.1))


def test_a_board_lands_where_the_pinhole_says() -> None:
    painter = brush()
    painter.place(upright(m.SIGN, 1.0, 2.0), 1.0, 10.0, 0.0)
    ids = painter.ids[GRAIN // 2 :: GRAIN, GRAIN // 2 :: GRAIN]
    rows, columns = np.nonzero(ids == m.SIGN)
    # x 0..2 m at 10 m and 100 px of focal length: columns 50..70; up 0..2 m under a camera at 2 m: rows 40..60
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (40, 60, 50, 70)


def test_the_nearer_of_two_covers_the_other_and_solids_hide_their_back() -> None:
    painter = brush()
    painter.place(upright(m.BUS, 1.0, 2.0), 0.0, 20.0, 0.0)
    painter.place(upright(m.CAR, 1.0, 2.0), 0.0, 10.0, 0.0)
    assert (painter.ids == m.CAR).any() and not (painter.ids == m.BUS).any()
    painter = brush()
    rear = m.Part(m.front(m.rect(-1, 1, 0, 2)), (9, 9, 9), m.TRUCK, (0.0, 0.0, -1.0))
    away = m.Part(m.front(m.rect(-1, 1, 0, 2)), (9, 9, 9), m.TRAIN, (0.0, 0.0, 1.0))
    painter.place(m.Model([rear, away], 1.0, 0.1, 2.0), 0.0, 10.0, 0.0)
    assert (painter.ids == m.TRUCK).any() and not (painter.ids == m.TRAIN).any()


def test_haze_takes_the_horizons_colour_with_distance() -> None:
    painter = brush()
    low = np.array(painter.mood.low)
    distances = [np.abs(np.array(painter.shade((10, 10, 10), depth)) - low).sum() for depth in (5, 50, 5000)]
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1

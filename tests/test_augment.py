"""Training crops: sizes, padding, image and mask in step, and the same crops for any number of workers."""

import threading

import numpy as np
import pytest
import torch

from roadseg.scenes.augment import MEAN, STD, Augmentation, augmenter, crop_size, normalise
from roadseg.scenes.batches import Batches, largest_share, prefetch
from roadseg.scenes.plan import even

RED_OF = np.array([10, 120, 240], dtype=np.uint8)
"""Red of each class in a scene whose label can be read off its colour."""


class Scenes:
    """Stands in for a Pack: blocks of three classes, the red channel telling which."""

    def __init__(self, count: int = 5, size: tuple[int, int] = (64, 96)):
        random = np.random.default_rng(0)
        self.pairs = []
        for _ in range(count):
            ids = random.integers(0, 3, (size[0] // 16, size[1] // 16), dtype=np.uint8)
            image = np.zeros((*size, 3), dtype=np.uint8)
            label = np.kron(ids, np.ones((16, 16), dtype=np.uint8))
            image[..., 0] = RED_OF[label]
            self.pairs.append((image, label))
        self.pixels = count * size[0] * size[1]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
        return self.pairs[scene]


@pytest.mark.parametrize(
    ("size", "share", "expected"),
    [
        ((360, 480), 1, (360, 480)),  # no multiple of 32, taken as it is
        ((144, 288), 0.5, (64, 160)),  # 72 and 144: 2.25 and 4.5 times 32
        ((144, 288), 0.75, (96, 224)),
        ((120, 288), 0.99, (120, 288)),  # 128 would be larger than the scene
        ((1024, 2048), 0.25, (256, 512)),
        ((100, 100), 0.01, (64, 64)),
        ((20, 40), 0.5, (20, 40)),
        ((20, 140), 0.5, (20, 64)),
    ],
)
def test_crop_size(size: tuple[int, int], share: float, expected: tuple[int, int]) -> None:
    assert crop_size(*size, share) == expected


def test_crop_size_outside_of_its_range() -> None:
    with pytest.raises(ValueError, match=r"`share` \(=1.5\) of a scene's side must be in \(0, 1\]"):
        crop_size(64, 64, 1.5)


@pytest.mark.parametrize("crop", [(64, 96), (32, 64), (96, 160)])
def test_mask_stays_on_its_image(crop: tuple[int, int]) -> None:
    """Wherever the mask is not padding it is the class that the colour tells, but for the blurred edges of blocks and
    for crops that are made so bright or so dark that one red looks like another."""
    augment, scenes = augmenter(crop), Scenes()
    right = total = 0
    for seed in range(40):
        image, mask = augment(*scenes[seed % 5], seed)
        assert image.shape == (*crop, 3) and mask.shape == crop and image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 1, 2, 255}
        told = np.abs(image[..., :1].astype(int) - RED_OF.astype(int)).argmin(axis=-1)
        labelled = mask != 255
        right += (told == mask)[labelled].sum()
        total += labelled.sum()
    assert right / total > 0.9


def test_padding_is_ignored_and_only_padding_is() -> None:
    """A crop larger than any zoom of the scene: one filled rectangle of labels, 255 around it."""
    scene = np.full((32, 32, 3), 200, dtype=np.uint8), np.ones((32, 32), dtype=np.uint8)
    areas = set()
    for seed in range(20):
        _, mask = augmenter((96, 96))(*scene, seed)
        rows, columns = (np.flatnonzero((mask == 1).any(axis=axis)) for axis in (1, 0))
        box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert (box == 1).all() and (mask == 255).sum() == mask.size - box.size
        assert 0.75 * 32 - 1 <= len(rows) <= 2 * 32 and len(rows) == len(columns)
        areas.add(box.size)
    assert len(areas) > 10, "the zoom varies"


def test_zoom_and_colour_are_as_strong_as_asked() -> None:
    """How many pixels of a crop the whole scene fills is its zoom; how far its grey is from the scene's, its colour."""
    scene = np.full((32, 32, 3), 100, dtype=np.uint8), np.ones((32, 32), dtype=np.uint8)
    for low, high, colour in ((1.0, 1.0, 0.0), (0.5, 0.75, 1.0), (1.5, 3.0, 0.5)):
        augment = augmenter((96, 96), Augmentation(zoom=(low, high), colour=colour))
        drawn = [augment(*scene, seed) for seed in range(60)]
        zooms = [np.sqrt((mask == 1).sum()) / 32 for _, mask in drawn]
        far = [abs(float(image[mask == 1].mean()) - 100) / 255 for image, mask in drawn]
        assert low - 0.04 < min(zooms) <= max(zooms) < high + 0.04
        assert max(zooms) - min(zooms) >= 0.8 * (high - low)
        assert 0.15 * colour <= max(far) <= 0.2 * colour * (1 + 100 / 255) + 0.01


def test_only_what_a_crop_shows_is_read() -> None:
    """Of a scene in a mapped file the rest stays on the disk."""
    read: list[tuple[int, ...]] = []

    class Watched(np.ndarray):
        def __getitem__(self, where: object) -> np.ndarray:
            found = np.asarray(self)[where]  # type: ignore[index]
            read.append(found.shape[:2])
            return found

    image, mask = (np.zeros(shape, np.uint8).view(Watched) for shape in ((400, 600, 3), (400, 600)))
    augmenter((64, 96), Augmentation(zoom=(2.0, 2.0)))(image, mask, 1)
    assert read == [(32, 48), (32, 48)]


def test_a_crop_is_told_by_its_seed_alone() -> None:
    image, mask = Scenes()[0]
    first, second = augmenter((32, 32)), augmenter((32, 32))
    for seed in (7, 1, 2**32 - 1):
        second(image, mask, 99)  # drawn before: must not matter
        for a, b in zip(first(image, mask, seed), second(image, mask, seed), strict=True):
            np.testing.assert_array_equal(a, b)
    assert any((first(image, mask, 1)[i] != first(image, mask, 2)[i]).any() for i in (0, 1))


def test_flips_happen_half_of_the_time() -> None:
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    mask = np.repeat(np.array([[0, 1]], dtype=np.uint8), 16, axis=1).repeat(32, axis=0)
    augment = augmenter((32, 32))
    drawn = [augment(image, mask, seed)[1] for seed in range(200)]
    flipped = [m for m in drawn if m[m != 255].size and m[16][m[16] != 255][0] > m[16][m[16] != 255][-1]]
    straight = [m for m in drawn if m[m != 255].size and m[16][m[16] != 255][0] < m[16][m[16] != 255][-1]]
    assert 0.35 < len(flipped) / (len(flipped) + len(straight)) < 0.65


def test_flips_turns_and_colours_are_drawn_apart() -> None:
    """Of flipped and of unflipped crops as many are recoloured, and turns go either way for both."""
    image = np.full((64, 64, 3), 120, dtype=np.uint8)
    image[:, :, 1:] = (60, 30)
    mask = np.repeat(np.array([[0, 1]], dtype=np.uint8), 32, axis=1).repeat(64, axis=0)
    plain = augmenter((32, 32))
    drawn = [plain(image, mask, seed) for seed in range(400)]
    both = [(colours, ids) for colours, ids in drawn if set(np.unique(ids)) >= {0, 1}]
    flipped = np.array([ids[ids != 255][0] == 1 for _, ids in both])
    recoloured = np.array([(colours[ids != 255] != (120, 60, 30)).any() for colours, ids in both])
    shares = [recoloured[flipped == value].mean() for value in (True, False)]
    assert min(np.count_nonzero(flipped), np.count_nonzero(~flipped)) > 50
    assert abs(shares[0] - shares[1]) < 0.2 and min(shares) > 0.5 and max(shares) < 0.95  # 1 - 0.4 * 0.7 is 0.72

    turned = augmenter((64, 64), Augmentation(rotation=30))
    ways = []
    for seed in range(120):
        _, ids = turned(image, mask, seed)
        at = [np.flatnonzero(np.diff((row == 1).astype(int)) != 0) for row in (ids[20], ids[44])]
        inside = [a[(a > 8) & (a < 56)] for a in at]
        if len(inside[0]) == 1 == len(inside[1]) and inside[0][0] != inside[1][0]:
            ways.append(inside[0][0] > inside[1][0])
    assert len(ways) > 20 and 0.25 < np.mean(ways) < 0.75


def same(a: list, b: list) -> bool:
    pairs = zip(a, b, strict=True)
    return all(torch.equal(image, image_) and torch.equal(mask, mask_) for (image, mask), (image_, mask_) in pairs)


def test_batches_are_the_same_for_any_number_of_workers_and_from_any_start() -> None:
    def batches(seed: int = 3) -> Batches:
        return Batches(Scenes(), even(10**9, 4, (32, 64)), seed=seed)

    alone = list(prefetch(batches(), 0, 6, workers=0))
    assert alone[0][0].shape == (4, 32, 64, 3) and alone[0][1].shape == (4, 32, 64)
    for workers in (1, 2, 4):
        assert same(alone, list(prefetch(batches(), 0, 6, workers=workers)))
    assert same(alone[4:], list(prefetch(batches(), 4, 6)))
    assert list(prefetch(batches(), 6, 6)) == []
    assert not same(alone, list(prefetch(batches(seed=4), 0, 6)))


def test_each_pass_takes_every_scene_once_in_another_order_and_place() -> None:
    class Marked(Scenes):
        """Scene i holds class i everywhere."""

        def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
            return np.full((64, 96, 3), 128, dtype=np.uint8), np.full((64, 96), scene, dtype=np.uint8)

    def who(mask: torch.Tensor) -> int:
        return int(mask[mask != 255][0])

    batches = Batches(Marked(6), even(10**9, 2, (32, 32)), seed=0)
    orders = [[who(mask) for n in range(3 * p, 3 * p + 3) for mask in batches[n][1]] for p in range(4)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    plain = Batches(Scenes(1), even(10**9, 1, (32, 32)), seed=0)  # one scene: epochs differ by the crop alone
    assert len({plain[n][1].numpy().tobytes() for n in range(6)}) == 6


def test_scenes_come_as_often_as_their_weights_say() -> None:
    """1, 2.5, 0.25 and 0.25 times a pass of four: never more than rounded up, never less than rounded down."""
    draws = [1.0, 2.5, 0.25, 0.25]
    batches = Batches(Scenes(4), even(10**9, 1, (32, 32)), seed=5, draws=draws)
    passes = [[batches.scene(4 * p + n) for n in range(4)] for p in range(400)]
    counts = np.array([[one.count(scene) for scene in range(4)] for one in passes])
    assert (counts >= np.floor(draws)).all() and (counts <= np.ceil(draws)).all()
    np.testing.assert_allclose(counts.mean(axis=0), draws, atol=0.08)
    assert len({tuple(one) for one in passes}) > 20
    draws = [1.0, 1.41, 1.0]  # 3.41 in passes of 3: each comes a little less often
    uneven = Batches(Scenes(3), even(10**9, 1, (32, 32)), seed=5, draws=draws)
    counts = np.bincount([uneven.scene(i) for i in range(3 * 2000)], minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), np.array(draws) / sum(draws), atol=0.015)
    plain, ones = (Batches(Scenes(9), even(10**9, 1, (32, 32)), seed=5, draws=d) for d in (None, [1.0] * 9))
    assert [plain.scene(i) for i in range(50)] == [ones.scene(i) for i in range(50)]
    assert [Batches(Scenes(2), even(10**9, 1, (8, 8)), seed=0, draws=[3, 1]).scene(i) for i in range(4)].count(0) == 3
    with pytest.raises(ValueError, match=r"`draws` has 3 numbers for 4 scenes"):
        Batches(Scenes(4), even(10**9, 1, (32, 32)), seed=5, draws=[1, 1, 1])


def test_stopping_early_leaves_no_thread() -> None:
    stream = prefetch(Batches(Scenes(), even(10**9, 1, (32, 32)), seed=0), 0, 1000)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_normalise_is_the_formula() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    out = normalise(torch.from_numpy(pixels))
    expected = ((pixels / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    assert out.dtype == torch.float32 and out.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(out.numpy(), expected, rtol=0, atol=1e-5)


def test_turned_crops_keep_their_classes_and_show_where_nothing_is() -> None:
    image, mask = np.full((64, 96, 3), 200, np.uint8), np.full((64, 96), 3, np.uint8)
    turned = augmenter((64, 96), Augmentation(rotation=30))
    seen = set()
    for seed in range(12):
        _, label = turned(image, mask, seed)
        seen |= set(np.unique(label).tolist())
    assert seen == {3, 255}, "nearest neighbour makes no class that is not there; corners are ignored"
    plain = augmenter((64, 96))
    assert any((turned(image, mask, seed)[1] != plain(image, mask, seed)[1]).any() for seed in range(3))


def test_crops_of_one_class_alone_are_drawn_anew() -> None:
    label = np.zeros((64, 256), np.uint8)
    label[:, 128:] = 1

    class Halves:
        names, pixels = ["a"], 64 * 256

        def __len__(self) -> int:
            return 1

        def __getitem__(self, scene: int) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((64, 256, 3), np.uint8), label

    def shares(max_share: float) -> list[float]:
        drawn = Batches(Halves(), even(10**9, 1, (32, 64)), seed=1, max_share=max_share)  # type: ignore[arg-type]
        return [largest_share(drawn[number][1].numpy()[0]) for number in range(40)]

    free, mixed = shares(1.0), shares(0.75)
    assert sum(share == 1 for share in free) > 10 > sum(share == 1 for share in mixed)
    assert shares(0.75) == mixed, "the same each time"
    assert largest_share(np.full((4, 4), 255, np.uint8)) == 1

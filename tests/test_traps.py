"""The nine traps of ../shared/reference/datasets.md, section 0, one test each: it fails when the trap is back."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from roadseg import labels
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes import masks, sources
from roadseg.scenes.index import read_index
from roadseg.stages import fetch, remap
from tests import segnet

NINETEEN = "road sidewalk building wall fence pole traffic-light traffic-sign vegetation terrain sky person rider car"
NINETEEN += " truck bus train motorcycle bicycle"
SEGNET = "Sky Building Pole Road Pavement Tree SignSymbol Fence Car Pedestrian Bicyclist"
IDS = np.random.default_rng(0).integers(0, 19, (6, 9), dtype=np.uint8)
WALL, FENCE = (102, 102, 156), (190, 153, 153)


def saved(folder: Path, pixels: np.ndarray | Image.Image) -> Path:
    path = folder / "mask.png"
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(path)
    return path


def with_palette(ids: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(ids).convert("P")
    image.putdata(ids.ravel().tolist())
    image.putpalette(colours)
    return image


def train_ids(config: Config, name: str, path: Path, *, space: str = "cityscapes19") -> list[list[int]]:
    """What a mask of this source, as params.yaml describes it, is for training."""
    source = sources.get(config, name)
    raw = source.labels(path.parent) if name != "mapillary" else labels.raw("mapillary12")
    return labels.load(space).table(raw).remap(masks.read(path, source.masks, raw), path).tolist()


def cityscapes(masks_of: dict[str, np.ndarray | Image.Image]) -> Config:
    """Cityscapes' two archives, a scene a split; settings that read them."""
    gtfine, images = {}, {}
    for split, mask in masks_of.items():
        stem = f"{split}/{split}ville/{split}ville_000000_000019"
        gtfine[f"gtFine/{stem}_gtFine_labelIds.png"] = saved(Path(), mask).read_bytes()
        images[f"leftImg8bit/{stem}_leftImg8bit.png"] = segnet.png(np.zeros((*IDS.shape, 3), np.uint8))
    segnet.write_archive(Path("city/gtFine_trainvaltest.zip"), gtfine)
    segnet.write_archive(Path("city/leftImg8bit_trainvaltest.zip"), images)
    return segnet.settings(data__sources=["cityscapes"], sources__cityscapes={"archive": "city"})


def test_trap_1_a_palettes_indices_are_the_ids_and_its_colours_are_nothing(tmp_path: Path) -> None:
    """Mapillary's palettes are older than its classes, and several ids share a colour."""
    path = saved(tmp_path, with_palette(IDS, [7, 7, 7] * 256))
    colormaps = segnet.settings(sources__bdd100k={"masks": "colormaps"})
    assert train_ids(colormaps, "bdd100k", path) == IDS.tolist()
    found = masks.read(path, sources.get(segnet.settings(), "mapillary").masks, labels.raw("mapillary12"))
    assert found.dtype == np.uint8
    assert found.tolist() == IDS.tolist()


def test_trap_2_wall_and_fence_have_cityscapes_colours(tmp_path: Path) -> None:
    """BDD's configs/sem_seg.toml swaps them. No colour of it is used: a colormap with its palette reads the same."""
    for table in ("cityscapes", "trainids19", "mapillary12"):
        raw = labels.raw(table)
        colour = {name.rsplit("--")[-1]: raw.colours[i] for i, name in raw.names.items()}
        assert (colour["wall"], colour["fence"]) == (WALL, FENCE), table
    space = labels.load("cityscapes19")
    colour = dict(zip(space.classes, space.colours, strict=True))
    assert (colour["wall"], colour["fence"]) == (WALL, FENCE)
    swapped = [value for i in range(256) for value in {3: FENCE, 4: WALL}.get(i, (i, i, i))]
    path = saved(tmp_path, with_palette(IDS, swapped))
    assert train_ids(segnet.settings(sources__bdd100k={"masks": "colormaps"}), "bdd100k", path) == IDS.tolist()


@pytest.mark.parametrize("kind", ["masks", "colormaps"])
def test_trap_3_bdds_masks_hold_train_ids_not_the_ids_of_its_label_file(tmp_path: Path, kind: str) -> None:
    """bdd100k/label/label.py has building 10, fence 11, wall 15, sky 30 and truck 40."""
    config = segnet.settings(sources__bdd100k={"masks": kind})
    source = sources.get(config, "bdd100k")
    lut = labels.load("cityscapes19").table(source.labels(tmp_path)).lut
    assert {i: int(train) for i, train in enumerate(lut) if train >= 0} == {**{i: i for i in range(19)}, 255: 255}
    names = source.labels(tmp_path).names
    assert " ".join(names[i].replace(" ", "-") for i in range(19)) == NINETEEN

    def mask(ids: np.ndarray) -> Path:
        return saved(tmp_path, with_palette(ids, list(range(256)) * 3) if kind == "colormaps" else ids)

    assert train_ids(config, "bdd100k", mask(IDS)) == IDS.tolist()
    with pytest.raises(UserError, match=r"label id 30 \(4 px\), 40 \(2 px\) is not in the raw labels trainids19"):
        train_ids(config, "bdd100k", mask(np.array([[30, 30, 40], [10, 30, 30], [11, 15, 40]], np.uint8)))


@pytest.mark.parametrize("unknown", [34, 255])
def test_trap_4_a_licence_plate_is_not_ignored_by_accident(unknown: int) -> None:
    """Its id -1 is 255 in 8 bits, which must not pass for ignore, and -1 as an index would be a table's last entry."""
    ids = np.full((4, 4), 7, np.uint8)
    ids[1, 2:] = unknown
    table = labels.load("cityscapes19").table(labels.raw("cityscapes"))
    with pytest.raises(
        UserError, match=rf"^m\.png: label id {unknown} \(2 px\) is not in the raw labels cityscapes \(ids 0 to 33\)"
    ):
        table.remap(ids, "m.png", tolerate=1)
    assert min(labels.raw("cityscapes").names) == 0
    ids[ids == unknown] = 33
    assert table.remap(ids, "m.png").tolist() == [[0] * 4, [0, 0, 18, 18], [0] * 4, [0] * 4]


def test_trap_5_segnets_pavement_is_not_camvids_sidewalk_and_no_thirteenth_class_is_read(tmp_path: Path) -> None:
    """(60, 40, 222) is how SegNet paints Pavement; the data's own Sidewalk is (0, 0, 192)."""
    cambridge = segnet.settings(sources__camvid={"edition": "cambridge"})
    sidewalk, pavement = (np.full((2, 2, 3), colour, np.uint8) for colour in ((0, 0, 192), (60, 40, 222)))
    assert train_ids(cambridge, "camvid", saved(tmp_path, sidewalk), space="camvid11") == [[4, 4], [4, 4]]
    with pytest.raises(UserError, match=r"colour \(60, 40, 222\) \(4 px\) is not in the raw labels camvid32"):
        train_ids(cambridge, "camvid", saved(tmp_path, pavement), space="camvid11")
    assert labels.load("camvid11").colours[4] == (60, 40, 222)
    with pytest.raises(UserError, match=r"label id 12 \(4 px\) is not in the raw labels segnet11 \(ids 0 to 11\)"):
        train_ids(segnet.settings(), "camvid", saved(tmp_path, np.full((2, 2), 12, np.uint8)), space="camvid11")


def test_trap_6_camvids_classes_are_in_segnets_order(tmp_path: Path) -> None:
    """Another order of the same eleven circulates: Building 0, Tree, Sky, Car, ..."""
    raw = labels.raw("segnet11")
    assert " ".join(raw.names[i] for i in range(11)) == SEGNET
    space = labels.load("camvid11")
    assert [name.replace(" ", "") for name in space.classes] == SEGNET.lower().split()
    ids = np.arange(12, dtype=np.uint8)[None]
    found = train_ids(segnet.settings(), "camvid", saved(tmp_path, ids), space="camvid11")
    assert found == [[*range(11), 255]]
    in_nineteen = "sky building pole road sidewalk vegetation traffic-sign fence car person rider"
    found = train_ids(segnet.settings(), "camvid", saved(tmp_path, ids))
    assert " ".join(NINETEEN.split()[i] for i in found[0][:11]) == in_nineteen


@pytest.mark.parametrize(("name", "which", "factor"), [("cityscapes", "instanceIds", 1000), ("kitti", "instance", 256)])
def test_trap_7_each_source_packs_its_instances_in_its_own_way(
    tmp_path: Path, name: str, which: str, factor: int
) -> None:
    """Cityscapes: id * 1000 + n, or the plain id where there is no instance; KITTI: id * 256 + n."""
    ids = np.random.default_rng(1).integers(1, 34, (6, 9), dtype=np.uint8)
    number = np.arange(ids.size).reshape(ids.shape) % 7
    packed = (ids.astype(np.uint16) * factor + number).astype(np.uint16)
    if name == "cityscapes":
        packed = np.where(number == 0, ids, packed).astype(np.uint16)
    raw = labels.raw("cityscapes")
    config = segnet.settings(**{f"sources__{name}": {"masks": which}})
    encoding = sources.get(config, name).masks
    assert masks.read(saved(tmp_path, packed), encoding, raw).tolist() == ids.tolist()

    # Of the other packing only what is of no class can be seen: 26 * 256 + 1 is class 6 by Cityscapes' rule.
    huge = np.full((2, 2), 60000, np.uint16)
    with pytest.raises(UserError, match=rf"label id {60000 // factor} \(4 px\) is not in the raw labels cityscapes"):
        train_ids(config, name, saved(tmp_path, huge))
    if name == "cityscapes":
        with pytest.raises(UserError, match=r"instance value 999 is of no class: this is no instance1000 mask"):
            train_ids(config, name, saved(tmp_path, np.full((2, 2), 999, np.uint16)))


def test_trap_8_cityscapes_test_masks_are_no_labels(workspace: Path) -> None:
    """They are shipped, and hold nothing but the car's hood and the image's edge."""
    hood = np.full(IDS.shape, 1, np.uint8)
    config = cityscapes({"train": IDS + 7, "val": IDS + 7, "test": hood})
    fetch.run(config, "cityscapes")
    raw = Path("data/raw/cityscapes")
    assert sorted(path.name for path in (raw / "gtFine").iterdir()) == ["train", "val"]
    place = raw / "gtFine/test/testville/testville_000000_000019_gtFine_labelIds.png"
    place.parent.mkdir(parents=True)
    saved(place.parent, hood).rename(place)  # as unpacked by hand
    remap.run(config, "cityscapes")
    scenes = read_index(Path("data/remapped/cityscapes/index.csv"))
    assert [(scene.split, scene.label is not None) for scene in scenes] == [
        ("train", True),
        ("val", True),
        ("test", False),
    ]


def test_trap_9_predictions_that_are_called_labels_are_refused(workspace: Path) -> None:
    """Those seen in the wild, under the name NAME_gtFine_labelIds.png, had a palette: mode P, where labels are L. They
    held no void either, which is a warning (tests/test_bad_data.py, "masks without any void")."""
    config = cityscapes({"train": with_palette(IDS + 7, [0] * 768), "val": IDS + 7})
    fetch.run(config, "cityscapes")
    with pytest.raises(
        UserError,
        match=r"ville_000000_000019_gtFine_labelIds\.png has mode P, but an 8-bit mask of ids \(mode L\) is needed",
    ):
        remap.run(config, "cityscapes")
    assert not Path("data/remapped/cityscapes").exists()

"""BDD100K's semantic segmentation (Yu et al. 2020): 7000/1000/2000 scenes of 1280x720 in Cityscapes' trainIds.

Only `masks` (8-bit trainIds) and `colormaps` (a palette whose index is the trainId) are read; the `id` column of
bdd100k's own label.py and the colours of its configs are not used: wall and fence are swapped there.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from roadseg import labels
from roadseg.config import Bdd100k
from roadseg.scenes.sources.source import Archive, RawScene, Source, pairs

PAGE = "https://doc.bdd100k.com/download.html"
DATA = "https://dl.cv.ethz.ch/bdd100k/data"

LONELY = frozenset(
    [
        "3d581db5-2564fb7e",
        "52e3fd10-c205dec2",
        "781756b0-61e0a182",
        "78ac84ba-07bd30c2",
        "80a9e37d-e4548ac1",
        "9342e334-33d167eb",
        "fee92217-63b3f87f",
        "ff1e4d6d-f4d85cfd",
        "ff3d3536-04986e25",
        "ff3da814-c3463a43",
        "ff55861e-a06b953c",
        "ff7b98c7-3cb964ac",
        "a5242a75-c9f4fb66",
    ]
)
"""Images without a mask or masks without an image in the packages before June 2021 (the data set's own issue list)."""


def source(settings: Bdd100k) -> Source:
    return Source(
        space="cityscapes19",
        scan=partial(scan, masks=settings.masks),
        labels=lambda _: labels.raw("trainids19"),
        licence="BDD100K's own licence: education, research, not for profit",
        masks="palette" if settings.masks == "colormaps" else "index",
        archives=(
            *(
                Archive(
                    file=f"10k_images_{split}.zip",
                    url=f"{DATA}/10k_images_{split}.zip",
                    page=PAGE,
                    root="bdd100k",
                    wanted=rf"images/10k/{split}/[^/]+\.jpg",
                    optional=split == "test",
                )
                for split in ("train", "val", "test")
            ),
            Archive(
                file="bdd100k_sem_seg_labels_trainval.zip",
                url=f"{DATA}/bdd100k_sem_seg_labels_trainval.zip",
                page=PAGE,
                root="bdd100k",
                wanted=rf"labels/sem_seg/{settings.masks}/(train|val)/[^/]+\.png",
            ),
        ),
    )


def scan(folder: Path, *, masks: str = "masks") -> Iterator[RawScene]:
    """images/10k/SPLIT/KEY.jpg, labels/sem_seg/MASKS/SPLIT/KEY.png; test has no labels. The first eight digits of a key
    name the drive as far as it is known: frames that share them may be seconds apart."""
    images, labelled = folder / "images" / "10k", folder / "labels" / "sem_seg" / masks
    for split in ("train", "val"):
        found = pairs(
            (images / split).glob("*.jpg"),
            (labelled / split).glob("*.png"),
            lambda path: path.stem,
            lambda path: path.stem,
            known=LONELY,
        )
        for key, image, label in found:
            yield RawScene(split, key, image, label, key.split("-")[0])
    for image in sorted((images / "test").glob("*.jpg")):
        yield RawScene("test", image.stem, image, None, image.stem.split("-")[0])

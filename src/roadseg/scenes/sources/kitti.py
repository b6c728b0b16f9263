"""KITTI's semantic segmentation benchmark (Alhaija et al. 2018): 200 labelled frames of about 1242x375, 200 without.

There is no official validation split. Ours is fixed: the last 50 of the labelled frames, 000150_10 to 000199_10, in one
piece, so that few of the drives (which the archive does not name) are on both sides.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from roadseg import labels
from roadseg.config import Kitti
from roadseg.scenes.sources.source import Archive, RawScene, Source, pairs

VAL_FROM = "000150_10"


def source(settings: Kitti) -> Source:
    return Source(
        space="cityscapes19",
        scan=partial(scan, mask=settings.masks),
        labels=lambda _: labels.raw("cityscapes"),
        licence="CC BY-NC-SA 3.0: research, non-commercial",
        masks="instance256" if settings.masks == "instance" else "index",
        archives=(
            Archive(
                file="data_semantics.zip",
                url="https://s3.eu-central-1.amazonaws.com/avg-kitti/data_semantics.zip",
                page="https://www.cvlibs.net/datasets/kitti/eval_semseg.php?benchmark=semantics2015",
                wanted=rf"(training/(image_2|{settings.masks})|testing/image_2)/[^/]+\.png",
            ),
        ),
    )


def scan(folder: Path, *, mask: str = "semantic") -> Iterator[RawScene]:
    """training/image_2/NAME.png, training/MASK/NAME.png, testing/image_2/NAME.png. Each frame is its own sequence."""
    training = folder / "training"
    images, masks = (training / "image_2").glob("*.png"), (training / mask).glob("*.png")
    for name, image, label in pairs(images, masks, lambda path: path.stem, lambda path: path.stem):
        yield RawScene("val" if name >= VAL_FROM else "train", name, image, label, name)
    for image in sorted((folder / "testing" / "image_2").glob("*.png")):
        yield RawScene("test", image.stem, image, None, f"test {image.stem}")

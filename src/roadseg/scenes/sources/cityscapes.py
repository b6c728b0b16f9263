"""Cityscapes (Cordts et al. 2016), fine annotations: 2975/500/1525 scenes of 27 cities, 2048x1024. Needs an account.

`streets`, drawn by roadseg.scenes.streets, has the same layout and labels.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from roadseg import labels
from roadseg.config import Cityscapes
from roadseg.errors import UserError
from roadseg.scenes.sources.source import SPLITS, Archive, RawScene, Source

PAGE = "https://www.cityscapes-dataset.com/downloads/"
PACKAGE = "https://www.cityscapes-dataset.com/file-handling/?packageID="


def source(settings: Cityscapes) -> Source:
    return Source(
        space="cityscapes19",
        scan=partial(scan, mask=settings.masks),
        labels=lambda _: labels.raw("cityscapes"),
        licence="Cityscapes' own licence: research, no redistribution",
        masks="instance1000" if settings.masks == "instanceIds" else "index",
        archives=(
            Archive(
                file="gtFine_trainvaltest.zip",
                url=f"{PACKAGE}1",
                page=PAGE,
                wanted=rf"gtFine/(train|val)/[^/]+/[^/]+_{settings.masks}\.png",
                login="cityscapes",
            ),
            Archive(
                file="leftImg8bit_trainvaltest.zip",
                url=f"{PACKAGE}3",
                page=PAGE,
                wanted=r"leftImg8bit/(train|val|test)/[^/]+/[^/]+_leftImg8bit\.png",
                login="cityscapes",
            ),
        ),
    )


def scan(folder: Path, *, mask: str = "labelIds", labelled: tuple[str, ...] = ("train", "val")) -> Iterator[RawScene]:
    """leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png; in `labelled` splits, gtFine/SPLIT/CITY/NAME_gtFine_MASK.png.

    Cityscapes ships masks of the test split as well, which hold nothing but the car's own hood and the image's edge:
    they are no labels and never read. A city is a sequence: the official splits are by city.
    """
    for split in SPLITS:
        for image in sorted((folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.png")):
            city, name = image.parent.name, image.name.removesuffix("_leftImg8bit.png")
            label = folder / "gtFine" / split / city / f"{name}_gtFine_{mask}.png"
            if split in labelled and not label.is_file():
                raise UserError(f"{label} is missing, the mask of {image}")
            yield RawScene(split, name, image, label if split in labelled else None, city)
        masks = (folder / "gtFine" / split).glob(f"*/*_gtFine_{mask}.png") if split in labelled else ()
        for label in sorted(masks):
            image_name = label.name.removesuffix(f"_gtFine_{mask}.png") + "_leftImg8bit.png"
            if not (image := folder / "leftImg8bit" / split / label.parent.name / image_name).is_file():
                raise UserError(f"{image} is missing, the image of {label}")

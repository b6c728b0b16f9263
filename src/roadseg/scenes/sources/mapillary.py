"""Mapillary Vistas (Neuhold et al. 2017): 18000/2000/5000 scenes of 2 to over 20 megapixels. Needs an account.

The archive of v2.0 holds the labels of v1.2 (66 classes) and of v2.0 (124). In v1.x's own archive the folder of the
version is not there. Masks are read by index: their palettes may be older than the classes.
"""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from roadseg import labels
from roadseg.config import Mapillary
from roadseg.errors import UserError
from roadseg.labels import RawLabels
from roadseg.scenes.sources.source import Archive, RawScene, Source, pairs

RAW = {"v1.2": "mapillary12", "v2.0": "mapillary20"}


def source(settings: Mapillary) -> Source:
    return Source(
        space="cityscapes19",
        scan=partial(scan, version=settings.version),
        labels=partial(raw_labels, version=settings.version),
        licence="Mapillary Vistas Research Use License: non-commercial research, no redistribution",
        masks="palette",
        archives=(
            Archive(
                file="mapillary-vistas-dataset_public_v2.0.zip",
                page="https://www.mapillary.com/dataset/vistas",
                wanted=r"config[^/]*\.json|(training|validation|testing)/images/[^/]+\.jpg|"
                rf"(training|validation)/({settings.version}/)?labels/[^/]+\.png",
            ),
        ),
    )


def scan(folder: Path, *, version: str) -> Iterator[RawScene]:
    """PART/images/KEY.jpg and PART/[VERSION/]labels/KEY.png; testing has no labels. Each scene is its own sequence."""
    for split, part in (("train", "training"), ("val", "validation")):
        within = folder / part / version / "labels"
        masks = within if within.is_dir() else folder / part / "labels"
        images = (folder / part / "images").glob("*.jpg")
        for key, image, label in pairs(images, masks.glob("*.png"), lambda path: path.stem, lambda path: path.stem):
            yield RawScene(split, key, image, label, key)
    for image in sorted((folder / "testing" / "images").glob("*.jpg")):
        yield RawScene("test", image.stem, image, None, image.stem)


def raw_labels(folder: Path, *, version: str) -> RawLabels:
    """The archive's own classes: the names that we know, in the order of its config, since public copies of v2.0's
    table disagree on the order. UserError where the config is missing or names other classes."""
    ours = labels.raw(RAW[version])
    configs = [folder / f"config_{version}.json", folder / "config.json"]
    path = next((path for path in configs if path.is_file()), configs[0])
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["labels"]
        names = {i: str(row["name"]) for i, row in enumerate(rows)}
        colours = {i: (int(r), int(g), int(b)) for i, (r, g, b) in enumerate(row["color"] for row in rows)}
    except FileNotFoundError:
        raise UserError(f"{path} is missing: fetch the source again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of labels ({type(error).__name__}): fetch the source again") from None
    if odd := sorted(set(names.values()) ^ set(ours.names.values())):
        raise UserError(f"{path} does not list the classes of {version}: {odd[0]!r} ({len(odd)} such)")
    return RawLabels(ours.name, names, colours)

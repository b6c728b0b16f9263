"""The data sets that the line can read, one file each."""

from collections.abc import Callable
from typing import Any

from roadseg import labels
from roadseg.config import Config
from roadseg.errors import UserError
from roadseg.scenes.sources import bdd100k, camvid, cityscapes, folder, kitti, mapillary, streets
from roadseg.scenes.sources.blocks import scenes
from roadseg.scenes.sources.source import OFFICIAL, SPLITS, Archive, RawScene, Source

__all__ = ["OFFICIAL", "SOURCES", "SPLITS", "Archive", "RawScene", "Source", "get", "scenes", "space_of"]

SOURCES: dict[str, Callable[[Any], Source]] = {
    "streets": streets.source,
    "camvid": camvid.source,
    "cityscapes": cityscapes.source,
    "kitti": kitti.source,
    "mapillary": mapillary.source,
    "bdd100k": bdd100k.source,
    "folder": folder.source,
}
"""Name -> the source as its section of params.yaml's `sources` describes it."""


def get(config: Config, name: str) -> Source:
    """The source of that name, as configured. UserError with the valid names for any other."""
    if name not in SOURCES:
        raise UserError(f"source {name!r} is unknown (data.sources in params.yaml); valid: {', '.join(SOURCES)}")
    if (settings := getattr(config.sources, name)) is None:
        raise UserError(f"params.yaml's sources.{name} says nothing: describe it there, as README.md shows")
    return SOURCES[name](settings)


def space_of(config: Config) -> labels.LabelSpace:
    """The label space that this run trains in: data.space, else the first source's own."""
    return labels.load(config.data.space or get(config, config.data.sources[0]).space)

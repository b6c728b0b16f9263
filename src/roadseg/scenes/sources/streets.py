"""The embedded scenes: drawn by roadseg.scenes.streets, in Cityscapes' layout and labels, every split labelled."""

from functools import partial

from roadseg import labels
from roadseg.config import Streets
from roadseg.scenes.sources import cityscapes
from roadseg.scenes.sources.source import SPLITS, Source


def source(settings: Streets) -> Source:
    return Source(
        space="cityscapes19",
        scan=partial(cityscapes.scan, labelled=SPLITS),
        labels=lambda _: labels.raw("cityscapes"),
        licence="drawn by roadseg: no terms",
    )

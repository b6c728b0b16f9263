"""What a deployed form gets right: its own ids against the labels, at the labels' own resolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from roadseg.bar import track
from roadseg.deploy.engines import Session
from roadseg.errors import UserError
from roadseg.metrics import confusion
from roadseg.scenes import png
from roadseg.scenes.index import Scene

BANDS = 3
"""Rows of an image are judged in so many bands of equal height as well: far things are high in the image."""


@dataclass(frozen=True)
class Verdict:
    """What a session got right on some scenes. Confusions have rows = label, columns = prediction."""

    scenes: np.ndarray
    """Of each scene: int64 [S, C, C]."""
    bands: np.ndarray
    """Of each band of rows, from the top, over all scenes: int64 [BANDS, C, C]."""


def judge(session: Session, scenes: Sequence[Scene], classes: int, *, description: str = "Judging") -> Verdict:
    """Confusion of the ids that the session gives.

    The exact path of a deployer: the image file is read and given to `session`. Ids come at the image's size; a label
    of another size gets them by nearest neighbour (the arg max is in the graph, so logits cannot be resized).

    Raises:
        UserError: a scene has no label, or a file cannot be read.
    """
    verdict = Verdict(
        np.zeros((len(scenes), classes, classes), dtype=np.int64), np.zeros((BANDS, classes, classes), dtype=np.int64)
    )
    for place, scene in enumerate(track(scenes, description=description, transient=True)):
        image, label = read(scene)
        ids = session.postprocess(session.infer(session.preprocess(image)), label.shape)
        edges = [label.shape[0] * band // BANDS for band in range(BANDS + 1)]
        for band, (top, bottom) in enumerate(pairwise(edges)):
            matrix = confusion(ids[top:bottom], label[top:bottom], classes)
            verdict.bands[band] += matrix
            verdict.scenes[place] += matrix
    return verdict


def read(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """A labelled scene: image uint8 HWC RGB 0-255, label uint8 HW train ids, 255 = ignore.

    The pixels are as they are stored: a mask is, and what EXIF says of its image would turn one without the other.
    """
    if scene.label is None:
        raise UserError(f"{scene.image} has no label: it cannot be judged")
    return png.read_rgb(scene.image), png.read_ids(scene.label)

"""What training reads of data/profile/: class weights, and which classes each scene shows."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from roadseg import paths
from roadseg.config import CLASS_WEIGHTS
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.scenes.index import Scene


def weights(space: LabelSpace) -> dict[str, list[float]]:
    """Of the space's classes, by name; see roadseg.losses.build. UserError where the profile is missing, damaged, or of
    other classes."""
    path = paths.PROFILE / "weights.json"
    with _whole(path):
        found = json.loads(path.read_text(encoding="utf-8"))
        classes = list(found["classes"])
        named = {name: list(found[name]) for name in CLASS_WEIGHTS if name in found}
        if {len(values) for values in named.values()} != {len(classes)}:
            raise ValueError("weights of other classes than it names")
    if classes != list(space.classes):
        raise UserError(
            f"{path} is of other classes than {space.name}'s (params.yaml: data.space): run the profile stage again"
        )
    return named


def shows(scenes: Sequence[Scene], classes: Sequence[str]) -> np.ndarray:
    """bool [scenes, C]: which classes each scene shows; less than half a millionth of a scene is left out.

    UserError where the profile is missing, damaged, or of other scenes or masks.
    """
    path = paths.PROFILE / "scenes.csv"
    asked = [(scene.label.as_posix(), scene.label_sha256) for scene in scenes if scene.label]
    with _whole(path):
        labelled = pd.read_csv(path, dtype={"label_sha256": str}).dropna(subset=["label"])
        table = labelled.set_index(["label", "label_sha256"])[[f"share_{name}" for name in classes]]
    if missing := set(asked) - set(table.index):
        raise UserError(f"{path} does not know {min(missing)[0]} as it is now: run the profile stage again")
    return (table.loc[asked] > 0).to_numpy()


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """What cannot be read from a file of the profile's is one line."""
    if not path.is_file():
        raise UserError(f"{path} is missing: run the profile stage first")
    try:
        yield
    except (ValueError, TypeError, KeyError):
        raise UserError(f"{path} is damaged: run the profile stage again") from None

"""Registered models as the input of a training: `models:/NAME/VERSION` or `models:/NAME@ALIAS`, in train.initial and
train.distil.teacher.

DVC does not see an alias move: what must be repeatable names a version.
"""

import hashlib
import re
import shutil
from pathlib import Path

from roadseg import paths, tracking
from roadseg.config import Config
from roadseg.errors import UserError

NAMED = re.compile(rf"{re.escape(paths.MODELS)}(?P<name>[^/@]+)(?:/(?P<number>\d+)|@(?P<alias>[^/@]+))")


def pinned(config: Config) -> Config:
    """The settings with versions for aliases, the weights of every registered model that they name at
    `paths.weights`, copied there once.

    Raises UserError where there is no such version, or it was registered without weights.
    """
    train = config.train
    train = train.model_copy(update={"initial": _pinned(train.initial, "train.initial")})
    if distil := train.distil:
        teacher = _pinned(distil.teacher, "train.distil.teacher")
        train = train.model_copy(update={"distil": distil.model_copy(update={"teacher": teacher})})
    return config.model_copy(update={"train": train})


def _pinned(source: str, key: str) -> str:
    if not source.startswith(paths.MODELS):
        return source
    found = NAMED.fullmatch(source)
    if not found:
        raise UserError(f"params.yaml: {key} (={source!r}) must be models:/NAME/VERSION or models:/NAME@ALIAS")
    with tracking.open_registry(create=False) as registry:
        version = registry.find(found["name"], found["number"] or found["alias"])
        if version is None:
            have = ", ".join(str(one.number) for one in registry.versions(found["name"])) or "none"
            raise UserError(f"params.yaml: {key}: {registry.uri} has no {source}; versions of {found['name']}: {have}")
        if not version.weights:
            raise UserError(f"params.yaml: {key}: {version.uri} was registered without its weights: promote it again")
        place = paths.weights(version.uri)
        if _digest(place) != version.weights:  # not here yet, or of another store's version of this number
            shutil.rmtree(place.parent, ignore_errors=True)
            registry.download(version, place.parent, part="training")
            if _digest(place) != version.weights:
                raise UserError(f"{version.uri}: its weights at {registry.uri} are not those that were registered")
    return version.uri


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""

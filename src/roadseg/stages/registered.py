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

ALIAS = re.compile(rf"{re.escape(paths.MODELS)}{paths.NAME}@(?P<alias>[\w-]+)")


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
    name, which = _parts(source, key)
    with tracking.open_registry(create=False) as registry:
        version = registry.find(name, which)
        if version is None:
            have = ", ".join(str(one.number) for one in registry.versions(name)) or "none"
            raise UserError(f"params.yaml: {key}: {registry.uri} has no {source}; versions of {name}: {have}")
        if not version.weights:
            raise UserError(
                f"params.yaml: {key}: {version.uri} was registered without its weights: train and promote anew"
            )
        place = paths.weights(version.uri)
        if _digest(place) != version.weights:  # not here yet, or of another store's version of this number
            shutil.rmtree(place.parent, ignore_errors=True)
            place.parent.parent.mkdir(parents=True, exist_ok=True)
            registry.download(version, place.parent, part="training")
            if _digest(place) != version.weights:
                raise UserError(
                    f"{version.uri}: its weights at {registry.uri} are not those that were registered: "
                    "register it again, or name another version"
                )
    return version.uri


def _parts(source: str, key: str) -> tuple[str, str]:
    """The model's name, and its version's number or alias."""
    if found := paths.VERSION.fullmatch(source):
        return found["name"], found["number"]
    found = ALIAS.fullmatch(source)
    if not found:
        raise UserError(f"params.yaml: {key} (={source!r}) must be models:/NAME/VERSION or models:/NAME@ALIAS")
    if found["alias"].isdecimal():
        raise UserError(
            f"params.yaml: {key} (={source!r}): an alias is no number: write models:/{found['name']}/VERSION"
        )
    return found["name"], found["alias"]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""

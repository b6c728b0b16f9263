"""The network that training imitates: `train.distil` in params.yaml.

A teacher is what export leaves of a model, weights.safetensors with recipe.json beside it. It speaks the run's own
label space, for its answers are compared class by class.
"""

import json
from itertools import zip_longest
from pathlib import Path

from roadseg import distillation, nets
from roadseg.config import Distil
from roadseg.engine import Teacher
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.nets import initial


def load(settings: Distil, space: LabelSpace) -> Teacher:
    """Raises UserError where there is no such teacher, or it is of another label space or another network."""
    where = f"{settings.teacher} (params.yaml, train.distil.teacher)"
    weights = initial.existing(settings.teacher, "train.distil.teacher")
    network, classes, named = _recipe(weights.parent / "recipe.json", where)
    if classes != list(space.classes):
        pairs = enumerate(zip_longest(classes, space.classes, fillvalue="nothing"))
        number, theirs, ours = next((number, *pair) for number, pair in pairs if pair[0] != pair[1])
        raise UserError(
            f"{where} knows the {len(classes)} classes of {named}, and this run trains on {space.name}'s "
            f"{len(space.classes)}: class {number} is {theirs} there and {ours} here: a teacher must speak the same "
            "label space; to start from its weights, name it in train.initial"
        )
    net = nets.build(network, len(classes))
    found, sought = initial.read(weights, where), net.state_dict()
    fits = initial.cast(found, sought, where)
    if odd := sorted((found.keys() ^ sought.keys()) | (sought.keys() - fits.keys())):
        raise UserError(
            f"{where} does not hold the weights of {network}: {len(odd)} are missing, unknown or of another shape, "
            f"the first is {odd[0]}: copy export's whole folder"
        )
    net.load_state_dict(fits)
    return Teacher(net, distillation.build(settings.loss, settings.temperature), settings.weight)


def _recipe(path: Path, where: str) -> tuple[str, list[str], str]:
    """Network, classes and label space of a recipe.json."""
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{where}: no recipe.json of ours lies beside it ({error}): copy export's whole folder"
        ) from None
    match recipe:
        case {"network": str(network), "classes": [*classes]} if all(isinstance(one, str) for one in classes):
            return network, classes, str(recipe.get("space"))
    raise UserError(
        f"{where}: no recipe.json of ours lies beside it ({path} must have network, a name, and classes, a list of "
        "names): copy export's whole folder"
    )


def digest(settings: Distil | None) -> str:
    """What the teacher is today, for the name of a training: its weights' SHA-256."""
    return initial.digest(settings.teacher) if settings else ""

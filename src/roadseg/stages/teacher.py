"""The network that training imitates: `train.distil` in params.yaml.

A teacher is what export leaves of a model, weights.safetensors with recipe.json beside it. It speaks the run's own
label space, for its answers are compared class by class.
"""

import json

from safetensors import SafetensorError
from safetensors.torch import load_file

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
    try:
        recipe = json.loads((weights.parent / "recipe.json").read_text(encoding="utf-8"))
        network, classes = recipe["network"], recipe["classes"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{where}: no recipe.json of ours lies beside it ({error}): copy export's whole folder"
        ) from None
    if classes != list(space.classes):
        raise UserError(
            f"{where} knows the {len(classes)} classes of {recipe.get('space')}, and this run trains on {space.name}: "
            "a teacher must speak the same label space; to start from its weights, name it in train.initial"
        )
    net = nets.build(network, len(classes))
    try:
        net.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{where} does not hold the weights of {network}: {' '.join(str(error).split())}") from None
    return Teacher(net, distillation.build(settings.loss, settings.temperature), settings.weight)


def digest(settings: Distil | None) -> str:
    """What the teacher is today, for the name of a training: its weights' SHA-256."""
    return initial.digest(settings.teacher) if settings else ""

"""Whether what params.yaml asks of training can be had: before hours of trials, not in the middle of them."""

import torch
from torch import nn

from roadseg import losses, nets, schedules
from roadseg.config import CLASS_WEIGHTS, Config
from roadseg.engine import optimizers, precision
from roadseg.errors import UserError
from roadseg.nets import backbones, initial
from roadseg.scenes import sources
from roadseg.stages.training import Course

NOTHING = nn.Linear(1, 1)
"""What optimizers are tried on."""


def check(config: Config) -> None:
    """Raises UserError where params.yaml names something that there is not, or a start that does not fit a network."""
    for key, names, build in (
        ("search.losses", config.search.losses, lambda name: losses.build(name, dict.fromkeys(CLASS_WEIGHTS, (1.0,)))),
        ("train.schedule", (config.train.schedule,), schedules.build),
        ("train.optimizer", (config.train.optimizer,), lambda name: optimizers.build(name, NOTHING, weight_decay=0.0)),
        ("search.networks", config.search.networks, lambda name: not_loaded(config, name)),
        ("train.encoder_rate", config.search.networks, lambda name: slowed(config, name)),
    ):
        for name in names:
            try:
                build(name)
            except UserError as error:
                raise UserError(f"params.yaml: {key}: {error}") from None
    device = precision.default_device()
    dtype = precision.resolve(config.train.precision, device)
    if config.train.compile:
        precision.check_compiled(dtype, device)


def slowed(config: Config, network: str) -> None:
    """Raises UserError for a network without the encoder that train.encoder_rate is for."""
    if config.train.encoder_rate == 1:
        return
    with torch.device("meta"):
        encoders = backbones.inside(nets.build(network, 1))
    if not encoders:
        raise UserError(
            f"{config.train.encoder_rate:g}: {network} has no ResNet, Swin or MiT backbone to slow down: set it to 1, "
            "or leave this network out of search.networks"
        )


def check_crops(config: Config, course: Course) -> None:
    """Raises UserError where a trial could draw a crop that training cannot use."""
    for crop in config.search.crops:
        course.plan(crop, config.search.epochs)


def not_loaded(config: Config, network: str) -> list[str]:
    """A line for each weight of the network that is not in train.initial."""
    nets.known([network])
    if config.train.initial == initial.RANDOM:
        return []
    classes = sources.space_of(config).classes
    try:
        return initial.load(nets.build(network, len(classes)), config.train.initial, classes)
    except UserError as error:
        raise UserError(f"{network}: {error}") from None

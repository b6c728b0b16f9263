"""What a network starts from: random weights, ImageNet's in its backbone, or another training's.

`train.initial` in params.yaml: `random`, `imagenet`, `imagenet:FOLDER`, the path of a .safetensors file, such as the
one that export leaves beside a model, or `models:/NAME/VERSION`, a registered model. Weights of another label space fit
but for the classifiers. Whatever is not loaded is listed, of either side: nothing is dropped silently.
"""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from roadseg import paths
from roadseg.errors import UserError

RANDOM, IMAGENET = "random", "imagenet"
KEY = "train.initial"


def load(net: nn.Module, source: str) -> list[str]:
    """Puts the weights of `source` into `net`, in place. Returns a line for each weight that was not loaded, sorted.

    Raises UserError where the source is unknown, is missing, or has nothing that fits.
    """
    if source == RANDOM:
        return []
    if source.split(":")[0] == IMAGENET:
        return _imagenet(net, source.removeprefix(IMAGENET).removeprefix(":"))
    return _file(net, existing(source, KEY))


def digest(source: str) -> str:
    """What `source` stands for today, for the name of a training: a file's SHA-256, else the word itself."""
    if source == RANDOM or source.split(":")[0] == IMAGENET:
        return source
    return hashlib.sha256(existing(source, KEY).read_bytes()).hexdigest()


def _imagenet(net: nn.Module, folder: str) -> list[str]:
    """`folder`: of folders called like the backbones on the hub, resnet-18 and so on; empty is the hub itself."""
    from roadseg.nets.backbones import Backbone, load_imagenet

    backbones = {name: module for name, module in net.named_modules() if isinstance(module, Backbone)}
    if not backbones:
        raise UserError(
            f"train.initial: imagenet: {type(net).__name__} has no backbone with published weights; leave this network "
            "out of search.networks, or set train.initial: random"
        )
    lines = []
    for name, backbone in backbones.items():
        source = Path(folder, backbone.hub.rsplit("/", 1)[-1]) if folder else None
        lines += [f"{name}.{line}" for line in load_imagenet(backbone, source)]
    inside = tuple(f"{name}." for name in backbones)
    rest = [name for name in net.state_dict() if not name.startswith(inside)]
    return sorted([*lines, *(f"{name}: not in a backbone, starts at random" for name in rest)])


def _file(net: nn.Module, path: Path) -> list[str]:
    try:
        theirs = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} (train.initial) is no safetensors file: {' '.join(str(error).split())}") from None
    ours = net.state_dict()
    fits = {name: weight for name, weight in theirs.items() if name in ours and weight.shape == ours[name].shape}
    if not any(weight.ndim > 1 for weight in fits.values()):
        raise UserError(
            f"{path} (train.initial) holds no weight that fits {type(net).__name__}: it is of another network"
        )
    net.load_state_dict(fits, strict=False)
    lines = [f"{name}: in the file, has no place here" for name in theirs.keys() - ours.keys()]
    for name in ours.keys() - fits.keys():
        size = (
            f"{tuple(theirs[name].shape)} in the file, {tuple(ours[name].shape)} here"
            if name in theirs
            else "not there"
        )
        lines.append(f"{name}: {size}, starts at random")
    return sorted(lines)


def existing(source: str, key: str) -> Path:
    """The file of weights that the setting `key` names. Raises UserError where it is no such name, or not there."""
    path = paths.weights(source)
    if path.suffix != ".safetensors":
        words = f"{RANDOM}, {IMAGENET}, {IMAGENET}:FOLDER, " if key == KEY else ""
        raise UserError(f"{key} (={source!r}) must be {words}a .safetensors file or models:/NAME/VERSION")
    if not path.is_file():
        raise UserError(f"{source} (params.yaml, {key}) is not there: mend the path")
    return path


def described(lines: list[str], most: int = 20) -> str:
    """The lines for a screen: so many of them, then how many more."""
    shown = [f"  {line}" for line in lines[:most]]
    return "\n".join([*shown, *([f"  and {len(lines) - most} more"] if len(lines) > most else [])])

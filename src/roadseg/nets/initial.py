"""What a network starts from: random weights, ImageNet's in its backbone, or another training's.

`train.initial` in params.yaml: `random`, `imagenet`, `imagenet:FOLDER`, the path of a .safetensors file, such as the
one that export leaves beside a model, or `models:/NAME/VERSION`, a registered model. Weights of another label space fit
but for the classifiers: those of another size, and where the recipe.json beside the file names other classes than this
run's, those of the same size as well. Whatever is not loaded is listed, of either side: nothing is dropped silently.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from roadseg import closure, nets, paths
from roadseg.errors import UserError
from roadseg.nets import backbones

RANDOM, IMAGENET = "random", "imagenet"
KEY = "train.initial"
OTHER = "name weights that export left"


def load(net: nn.Module, source: str, classes: Sequence[str] | None = None) -> list[str]:
    """Puts the weights of `source` into `net`, in place. Returns a line for each weight that was not loaded and for
    each kind of number that was cast, sorted. classes: names of those that `net` tells apart; None takes a classifier
    that has as many for one of the same.

    Raises UserError where the source is unknown, is missing, is of another network, or holds no usable numbers.
    """
    if source == RANDOM:
        return []
    if source == IMAGENET:
        return _imagenet(net, None)
    if folder := _folder(source):
        return _imagenet(net, folder)
    return _file(net, existing(source, KEY), classes)


def digest(source: str) -> str:
    """What `source` stands for today, for the name of a training: a file's SHA-256, that of a folder's files and what
    reads them, else the word itself. The hub's own weights are taken to stay as they are."""
    if source == RANDOM:
        return source
    if source == IMAGENET:
        return f"{source} {backbones.library()}"
    if folder := _folder(source):
        if not folder.is_dir():
            raise UserError(f"the folder {folder} (params.yaml, {KEY}) is not there: mend the path")
        total = hashlib.sha256()
        for path in sorted(file for inside in folder.iterdir() for file in backbones.files(inside)):
            total.update(f"{path.relative_to(folder)} {_sha256(path)}\n".encode())
        return f"{total.hexdigest()} {backbones.library()}"
    return _sha256(existing(source, KEY))


def library(networks: Iterable[str]) -> str:
    """The package, with its version, that computes part of these networks, for the name of a training; empty where all
    are our own."""
    needed = (closure.closure(nets.module_of(name), without=nets.__name__) for name in networks)
    return backbones.library() if any(backbones.__name__ in modules for modules in needed) else ""


def read(path: Path, where: str) -> dict[str, Tensor]:
    """The file's weights by name. Raises UserError, which begins with `where`, where it is no such file."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{where} is no safetensors file ({' '.join(str(error).split())}): {OTHER}") from None


def cast(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Those of `theirs` that `ours` has in the same shape, as the same kind of number.

    Raises UserError, which begins with `where`, where one is of whole numbers and the other is not, or one is not
    finite: what was quantised or has diverged is nothing to start from.
    """
    fits = {}
    for name, weight in theirs.items():
        if name not in ours or weight.shape != ours[name].shape:
            continue
        if weight.is_floating_point() != ours[name].is_floating_point():
            raise UserError(f"{where}: {name} is {_kind(weight)} and must be {_kind(ours[name])}: {OTHER}")
        fits[name] = weight.to(ours[name].dtype)
        if not fits[name].isfinite().all():
            raise UserError(f"{where}: {name} holds values that are not finite: {OTHER}")
    return fits


def existing(source: str, key: str) -> Path:
    """The file of weights that the setting `key` names. Raises UserError where it is no such name, or not there."""
    try:
        path = paths.weights(source)
    except UserError as error:
        raise UserError(f"params.yaml: {key}: {error}") from None
    if path.suffix != ".safetensors":
        words = f"{RANDOM}, {IMAGENET}, {IMAGENET}:FOLDER, " if key == KEY else ""
        raise UserError(f"{key} (={source!r}) must be {words}a .safetensors file or models:/NAME/VERSION")
    if not path.is_file():
        raise UserError(f"{path} (params.yaml, {key}) is not there: mend the path")
    return path


def described(lines: Sequence[str], most: int = 20) -> str:
    """The lines for a screen: so many of them, then how many more."""
    shown = [f"  {line}" for line in lines[:most]]
    return "\n".join([*shown, *([f"  and {len(lines) - most} more"] if len(lines) > most else [])])


def _folder(source: str) -> Path | None:
    """FOLDER of imagenet:FOLDER, which holds folders called like the backbones on the hub, resnet-18 and so on."""
    folder = source.removeprefix(f"{IMAGENET}:")
    return paths.of_home(Path(folder)) if folder not in (source, "") else None


def _imagenet(net: nn.Module, folder: Path | None) -> list[str]:
    inside = backbones.inside(net)
    if not inside:
        raise UserError(
            f"train.initial: imagenet: {type(net).__name__} has no backbone with published weights; leave this network "
            "out of search.networks, or set train.initial: random"
        )
    lines = []
    for name, backbone in inside.items():
        place = folder / backbone.hub.rsplit("/", 1)[-1] if folder else None
        lines += [f"{name}.{line}" for line in backbones.load_imagenet(backbone, place)]
        own = backbone.state_dict()
        cast(own, own, f"{place or backbone.hub} (train.initial)")
    prefixes = tuple(f"{name}." for name in inside)
    rest = [name for name in net.state_dict() if not name.startswith(prefixes)]
    return sorted([*lines, *(f"{name}: not in a backbone, starts at random" for name in rest)])


def _file(net: nn.Module, path: Path, classes: Sequence[str] | None) -> list[str]:
    where = f"{path} (train.initial)"
    theirs, ours, recipe = read(path, where), net.state_dict(), _recipe(path)
    fits = cast(theirs, ours, where)
    said = recipe.get("classes")
    others = _of_classes(str(recipe.get("network"))) if classes and said and said != list(classes) else set[str]()
    fits = {name: weight for name, weight in fits.items() if name not in others}
    found, sought = backbones.counted(ours, fits)
    if 2 * found < sought:
        raise UserError(
            f"{where}: {found} of {sought} weights of {type(net).__name__} are in the file, fewer than half: "
            f"it is of {recipe.get('network') or 'another network'}; name weights of this network, leave this network "
            "out of search.networks, or set train.initial: random"
        )
    net.load_state_dict(fits, strict=False)
    casts = Counter((_kind(theirs[name]), _kind(ours[name])) for name in fits)
    lines = [f"{n} weights: {one} in the file, cast to {other}" for (one, other), n in casts.items() if one != other]
    lines += [f"{name}: in the file, has no place here" for name in theirs.keys() - ours.keys()]
    for name in ours.keys() - fits.keys():
        if name not in theirs:
            why = "not there"
        elif theirs[name].shape == ours[name].shape:
            why = "of other classes in the file"
        else:
            why = f"{tuple(theirs[name].shape)} in the file, {tuple(ours[name].shape)} here"
        lines.append(f"{name}: {why}, starts at random")
    return sorted(lines)


def _recipe(path: Path) -> dict[str, Any]:
    """The recipe beside the weights; empty where there is none."""
    try:
        recipe = json.loads((path.parent / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return recipe if isinstance(recipe, dict) else {}


def _of_classes(network: str) -> set[str]:
    """The weights of a network whose size hangs on the number of classes: its classifiers'."""
    if network not in nets.NETS:
        return set()
    with torch.device("meta"):
        two, three = (nets.build(network, classes).state_dict() for classes in (2, 3))
    return {name for name in two if two[name].shape != three[name].shape}


def _kind(weight: Tensor) -> str:
    return str(weight.dtype).removeprefix("torch.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

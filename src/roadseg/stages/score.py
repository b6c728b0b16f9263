"""A finalist's network scored with several views of each scene, beside the one view that is deployed.

Published scores are often of several scales and mirrored scenes; this says what that is worth here. It is the network
in torch at float32, not the exported file, and nothing is chosen by it.
"""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch import nn

from roadseg import checkpoint, engine, nets, paths
from roadseg.config import Config
from roadseg.engine import Views
from roadseg.errors import UserError
from roadseg.labels import LabelSpace
from roadseg.metrics import bootstrap_interval, scores
from roadseg.scenes import sources
from roadseg.scenes.index import labelled
from roadseg.scenes.pack import pack


def views(scales: str, flip: bool, window: str | None) -> Views:
    """The options of the command line. UserError for what is no list of sizes, or no HEIGHTxWIDTH."""
    try:
        sizes = tuple(float(word) for word in scales.split(","))
        if not all(0.1 <= size <= 10 for size in sizes):
            raise ValueError
    except ValueError:
        raise UserError(f"--scales {scales!r}: write sizes from 0.1 to 10, such as 0.75,1,1.25") from None
    try:
        height, width = (int(word) for word in window.split("x")) if window else (0, 0)
        if window and min(height, width) < 32:
            raise ValueError
    except ValueError:
        raise UserError(f"--window {window!r}: write HEIGHTxWIDTH in pixels, 32x32 or more, such as 512x1024") from None
    return Views(scales=sizes, flip=flip, window=(height, width) if window else None)


def run(config: Config, finalist: str | None, chosen: Views, split: str) -> dict[str, float]:
    """Prints mIoU with one view and with `chosen`, and returns them. Scenes are shrunk to `train.long_side`, but for
    windows, which slide over them as they are. UserError for no such finalist or split."""
    if split not in ("val", "test"):
        raise UserError(f"--split {split!r}: val or test")
    found = {path.name: path for path in paths.finalists(paths.TRAIN / "finalists")}
    name = finalist or (next(iter(found)) if len(found) == 1 else "")
    if name not in found:
        raise UserError(f"which finalist? {paths.TRAIN}/finalists has {', '.join(found)}")
    space, scenes = sources.space_of(config), labelled(config, split)
    net, classes = _trained(found[name], space), len(space.classes)
    device = engine.default_device()
    net = net.to(device)
    table = Table("views", "mIoU", "95 %, bootstrap over scenes", title=f"{name} on {split}, {len(scenes)} scenes")
    results = {}
    for label, views in (("one view", Views()), (_described(chosen), chosen)):
        side = None if views.window else config.train.long_side  # windows are for scenes that are too large as they are
        packed = pack(scenes, long_side=side, limit_gb=config.train.cache_gb)
        matrices = engine.evaluate(net, packed, classes=classes, device=device, progress=label, views=views)
        results[label] = scores(matrices).miou
        spread = bootstrap_interval(matrices, seed=config.seed)
        table.add_row(label, f"{results[label]:.2%}", f"{spread['low']:.2%} to {spread['high']:.2%}")
    Console().print(table)
    return results


def _trained(finalist: Path, space: LabelSpace) -> nn.Module:
    """UserError where it is of another label space than what is scored, or damaged."""
    path = finalist / "recipe.json"
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        if recipe["classes"] != list(space.classes):
            raise UserError(
                f"{path}: it was trained on {recipe['space']}, and data.space (params.yaml) is {space.name} now: run "
                "the search and train stages again"
            )
        net = nets.build(recipe["network"], len(space.classes))
        net.load_state_dict(checkpoint.load(finalist / "weights.pt"))
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{finalist} is not as the train stage left it ({reason}): run that stage again") from None
    return net


def _described(chosen: Views) -> str:
    words = ["scales " + ", ".join(f"{scale:g}" for scale in chosen.scales)]
    words += ["mirrored"] * chosen.flip
    words += [f"window {chosen.window[0]}x{chosen.window[1]}"] if chosen.window else []
    return "; ".join(words)

"""The finalists at full budget, each from its last checkpoint.

Reads models/search/finalists.json and data/profile/; writes models/train/: finalists/NAME/{weights.pt, recipe.json},
curves.csv and metrics.json. Checkpoints live in .state/checkpoints/, named by the training's whole input.

`pipelines/train.py` decides when each finalist runs; this file says how one is trained.
"""

import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from roadseg import checkpoint, distributed, figures, paths
from roadseg.config import Config
from roadseg.engine import Diverged
from roadseg.errors import StageFailure, UserError
from roadseg.metrics import Scores
from roadseg.nets import initial
from roadseg.stages import training
from roadseg.stages.progress import live
from roadseg.stages.stage import Stage
from roadseg.stages.training import Course, Recipe
from roadseg.tracking import Parent


def finalists() -> tuple[str, list[Recipe]]:
    """The study's key and the recipes that it chose, best first. UserError where there was no search."""
    path = paths.SEARCH / "finalists.json"
    if not path.is_file():
        raise UserError(f"{path} is missing: run the search stage first")
    chosen = json.loads(path.read_text())
    return chosen["study"], [Recipe(**values) for values in chosen["finalists"]]


FORMAT = 2
"""Of a finalist's checkpoint. Raise it when what is in one changes: older ones are then trained anew."""
KEEP_DAYS = 14
"""What was not asked for in so long is trained again when it is wanted."""


def train(config: Config, course: Course, recipe: Recipe, parent: Parent) -> Path:
    """Trains one finalist to the end of its budget, going on from its last checkpoint, and returns that checkpoint.

    The checkpoint holds the training's state, the curve so far, the last validation's scores, and the best averaged
    weights by validation mIoU with theirs.
    """
    key = _key(config, course, recipe)
    path = paths.state("checkpoints", f"{key}.pt")
    _forget(path)
    learner = course.begin(recipe, epochs=config.train.epochs, seed=config.seed)
    curve: list[dict[str, float]] = []
    best: dict[str, Any] = {}
    if path.exists():
        saved = checkpoint.load(path)
        try:
            state, curve, best = saved["training"], saved["curve"], saved["best"]
        except (LookupError, TypeError):
            raise UserError(f"{path} is no checkpoint of a training: delete it and start again") from None
        learner.load(state)
    elif left := course.network(recipe, config.seed)[1]:
        print(f"{recipe.name} starts from {config.train.initial}, but for (all of them are in its recipe.json):")
        print(initial.described(left))
    tags = {"roadseg.network": recipe.network, "roadseg.finalist": recipe.name}
    params = training.settings(config, recipe, epochs=config.train.epochs)
    validations = max(1, round(config.train.epochs / config.train.validate_every))
    with (
        parent.child(key, f"finalist-{recipe.name}", params, tags) as run,
        live(recipe.name, config.train.epochs, len(course.train), config.train.parts) as show,
    ):
        known = curve[-1]["val_miou"] if curve else None
        looks = course.validated(learner, recipe, epochs=config.train.epochs, times=validations, show=show, miou=known)
        for look in () if _given_up(config, curve) else looks:
            report, result = look.report, look.scores
            row = {
                "epoch": round(report.epoch, 3),
                "loss": look.loss,
                "learning_rate": report.learning_rate,
                "val_miou": result.miou,
                "val_pixel_accuracy": result.pixel_accuracy,
            }
            curve.append(row)
            run.metrics(row, step=len(curve))
            if not best or result.miou > best["scores"]["miou"]:
                net = {name: value.clone() for name, value in learner.ema.net.state_dict().items()}
                best = {"scores": asdict(result), "epoch": report.epoch, "net": net}
            if distributed.rank() == 0:
                state = {"training": learner.state(), "curve": curve, "scores": asdict(result), "best": best}
                checkpoint.save(path, state)
            if _given_up(config, curve):
                print(f"{recipe.name}: no better for {config.train.patience:g} epochs, stopped at {report.epoch:.1f}")
                break
        if not distributed.agreed(run.finished):
            course.record(run)
            run.figure("curves.png", figures.curves(pd.DataFrame(curve)))
        final = kept(config, checkpoint.load(path))  # of a finished training others, where `train.keep` has changed
        ious = zip(course.space.classes, final.scores.iou, strict=True)
        run.metrics({f"iou_{name}": iou for name, iou in ious if iou is not None} | {"kept_epoch": final.epoch})
    return path


def _forget(path: Path) -> None:
    """Removes the checkpoints beside `path`, half-written ones too, that nobody has asked for in KEEP_DAYS: each change
    of data, settings or code makes another."""
    if path.exists():
        path.touch()  # when it was last asked for
    for old in path.parent.glob("*.pt*"):
        with suppress(FileNotFoundError):  # another process of this training was faster
            if time.time() - old.stat().st_mtime > KEEP_DAYS * 86400:
                old.unlink()


def _given_up(config: Config, curve: list[dict[str, float]]) -> bool:
    """Whether the validation mIoU has not risen for `train.patience` epochs."""
    if not config.train.patience or not curve:
        return False
    best = max(curve, key=lambda row: row["val_miou"])
    waited = curve[-1]["epoch"] - best["epoch"]
    return waited > 0 and waited > config.train.patience - 0.5 * config.train.validate_every


def each(recipes: Iterable[Recipe], run: Callable[[Recipe], Path]) -> dict[Recipe, Path]:
    """What `run` returns for each recipe. One that diverges, or that memory does not hold, is left out, with a line
    that says so.

    Raises:
        StageFailure: all of them did.
    """
    trained, left_out, diverged = {}, [], False
    for recipe in recipes:
        try:
            trained[recipe] = run(recipe)
        except StageFailure as error:
            if distributed.size() > 1 and not isinstance(error, Diverged):
                raise  # of this process alone: the others would wait for it for ever, so torchrun ends them
            left_out.append(f"{recipe.name}: {error}")
            diverged |= isinstance(error, Diverged)
            print(f"left out: {left_out[-1]}")
    if not trained:
        advice = ": lower search.learning_rate.high in params.yaml" if diverged else ""
        raise StageFailure(f"train: {'; '.join(left_out)}{advice}")
    return trained


def _key(config: Config, course: Course, recipe: Recipe) -> str:
    ends: dict[str, Any] = {"format": FORMAT}
    ends |= {name: getattr(config.train, name) for name in ("epochs", "patience", "validate_every")}
    return training.key(course, [recipe.network], train=asdict(recipe), **ends)


class Kept(NamedTuple):
    """What is left of a training."""

    weights: dict[str, torch.Tensor]
    """Averaged."""
    scores: Scores
    """Theirs, on the validation split."""
    epoch: float
    """When they were."""


def kept(config: Config, saved: dict[str, Any]) -> Kept:
    """Of a finalist's checkpoint, what `train.keep` names."""
    if config.train.keep == "best":
        best = saved["best"]
        return Kept(best["net"], Scores(**best["scores"]), round(best["epoch"], 3))
    return Kept(saved["training"]["ema"], Scores(**saved["scores"]), saved["curve"][-1]["epoch"])


def write(config: Config, course: Course, trained: dict[Recipe, Path], running: Stage) -> None:
    """Places models/train/ from the finalists' checkpoints."""
    folder = running.folder(paths.TRAIN / "finalists")
    curves, summary = [], []
    for recipe, path in trained.items():
        saved = checkpoint.load(path)
        weights, result, epoch = kept(config, saved)
        home = folder / recipe.name
        home.mkdir()
        checkpoint.save(home / "weights.pt", weights)
        epochs, key = config.train.epochs, _key(config, course, recipe)
        described = training.describe(recipe, course, key=key, epochs=epochs, kept_epoch=epoch, val=result)
        (home / "recipe.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        curves.append(pd.DataFrame(saved["curve"]).assign(finalist=recipe.name))
        summary.append((result.miou, result.pixel_accuracy))
    pd.concat(curves).to_csv(running.aside(paths.TRAIN / "curves.csv"), index=False)
    miou, accuracy = max(summary)  # of the best, without its name, so that experiments line up
    running.json(paths.TRAIN / "metrics.json", {"best_val_miou": miou, "best_val_pixel_accuracy": accuracy})

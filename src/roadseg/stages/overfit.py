"""The check before a long training: a network that cannot learn a few scenes by heart will not learn a thousand.

Four scenes (or another few) of the training split, without augmentation, until the mIoU of the classes that they show
reaches the goal: from a minute for a light network to half an hour for a heavy one on a CPU, see docs/zoo.md. Finds
labels that do not fit their images, wrong class tables, learning rates that are far off and networks that are wired
wrongly. Writes models/overfit/: overfit.csv and overfit.png.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from roadseg import engine, figures, losses, nets, paths, schedules
from roadseg.config import Config
from roadseg.errors import StageFailure, UserError
from roadseg.metrics import scores
from roadseg.nets import initial
from roadseg.scenes import index, masks, sources
from roadseg.scenes.batches import Batches
from roadseg.scenes.pack import Pack, pack
from roadseg.scenes.plan import even
from roadseg.stages import registered
from roadseg.stages.profile import class_weights
from roadseg.stages.progress import live

STEPS = 1200
"""Of the schedule. Over 400 ENet, MiT and Swin stay below 90 %; who is quick stops early, and loses nothing by it."""
LOOKS = 40
"""How often the mIoU is looked at, at most."""
LOSS = "dice + weighted_cross_entropy"
EMA = 0.8
"""A short average, for a short training."""


@dataclass(frozen=True)
class Look:
    """How far a network is."""

    report: engine.Report
    miou: float
    """Of the classes that the scenes show, 0..1."""
    seconds: float
    """Since the first step, looks included."""


def run(
    config: Config,
    networks: Sequence[str] = (),
    *,
    scenes: int = 4,
    steps: int = STEPS,
    goal: float = 0.9,
    out: Path = Path("models/overfit"),
) -> None:
    """Prints a line a network and writes `out`. Raises StageFailure naming those that stay below the goal."""
    config = registered.pinned(config)
    names = tuple(networks) or config.search.networks
    nets.known(names)
    paths.folder(out)
    few = chosen(config, scenes)
    for line in few.left_out:
        print(f"left out: {line}")
    scenes = len(few)
    rows, below = [], []
    for name in names:
        looks: list[Look] = []
        try:
            with live(name, epochs=steps, scenes=scenes, parts=min(config.train.parts, scenes)) as show:
                for look in learn(config, name, few, steps=steps, goal=goal):
                    show(look.report, look.miou)
                    looks.append(look)
                    rows.append((name, look.report.step, look.report.loss, look.miou))
        except StageFailure as error:
            print(f"{name}: {error}")
        learns = bool(looks) and looks[-1].miou >= goal
        below += [name] * (not learns)
        if looks:
            last = looks[-1]
            said = f"{name} {'learns' if learns else 'does not learn'}: mIoU {last.miou:.1%} of {scenes} scenes"
            print(f"{said} after {last.report.step} steps, {last.seconds:.0f} s")
    frame = pd.DataFrame(rows, columns=["network", "step", "loss", "miou"])
    frame.to_csv(out / "overfit.csv", index=False)
    figures.overfit(frame, goal).savefig(out / "overfit.png")
    print(f"{out / 'overfit.csv'}, {out / 'overfit.png'}")
    if below:
        raise StageFailure(
            f"overfit: {', '.join(below)} stayed below mIoU {goal:.0%} on {scenes} scenes: look at the scenes with "
            "`roadseg show SOURCE`, at search.learning_rate, or give more --steps"
        )


def chosen(config: Config, scenes: int) -> Pack:
    """So many scenes of the training split, spread over those of the commonest size, packed."""
    listed = index.labelled(config, "train")
    sizes = Counter((scene.height, scene.width) for scene in listed)
    commonest = max(sizes, key=sizes.__getitem__, default=None)
    alike = [scene for scene in listed if (scene.height, scene.width) == commonest]
    if len(alike) < scenes:
        raise UserError(f"--scenes {scenes}: the train split has {len(alike)} scenes of one size")
    places = np.linspace(0, len(alike) - 1, scenes).round().astype(int)
    few, settings = [alike[place] for place in places], config.train
    skip = settings.skip_unreadable
    return pack(few, long_side=settings.long_side, own_labels=False, skip_unreadable=skip, limit_gb=settings.cache_gb)


def learn(config: Config, network: str, few: Pack, *, steps: int, goal: float) -> Iterator[Look]:
    """Trains until the goal is reached or the steps are done, with a Look now and then. All scenes make one batch.

    The loss is `LOSS`, with class weights of these scenes: of those tried it learns four scenes in the fewest steps,
    thin classes included. The peak learning rate is the middle of the search's range.
    """
    settings, device = config.train, engine.default_device()
    names = sources.space_of(config).classes
    labels = [few[scene][1] for scene in range(len(few))]
    counts = np.array([masks.histogram(label)[: len(names)] for label in labels])
    weights = class_weights(counts, np.array([label.size for label in labels]))
    torch.manual_seed(config.seed)
    net = nets.build(network, len(names))
    if left := initial.load(net, settings.initial, names):
        print(f"{network} starts from {settings.initial}, but for:\n{initial.described(left, most=len(left))}")
    training = engine.start(
        net,
        loss=losses.build(LOSS, weights, settings.class_weights),
        learning_rate=config.search.learning_rate.middle,
        parts=min(settings.parts, len(few)),
        weight_decay=0.0,  # learning by heart is the point
        schedule=schedules.build("poly"),
        optimizer=settings.optimizer,
        ema=EMA,
        precision=settings.precision,
        channels_last=settings.channels_last,
        device=device,
        total_steps=steps,
        aux_weight=settings.aux_weight,
        seed=config.seed,
    )
    begun = time.perf_counter()
    batches = Batches(few, even(steps, len(few), few.size), seed=config.seed, augmentation=None)
    for report in engine.fit(training, batches, report_every=-(-steps // LOOKS)):
        matrices = engine.evaluate(training.ema.net, few, classes=len(names), device=device)
        miou = scores(matrices.sum(axis=0)).miou
        yield Look(report, miou, time.perf_counter() - begun)
        if miou >= goal:
            return
